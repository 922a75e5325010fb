/* Matrix products on the tile registers of AMX, and the padded grids that they read. Included by layer.c.

   A tile register holds 16 rows of 64 bytes. The instruction TDPBF16PS multiplies a register of 16 rows × 32 bfloat16 with one
   of 16 pairs of rows × 16 columns, and adds the products to one of 16 × 16 floats.

   A place is a grid cell. A padded grid has the places of all cases one after the other, with zeros between rows and between
   cases, as many as a kernel reaches. So for each tap of a kernel the neighbours of 32 consecutive places are consecutive.

   A step of a convolution is one tap of its kernel and DEPTH channels. Its sums are (place, column); a column is an output
   channel. */

#include <immintrin.h>
#include <omp.h>
#include <stdint.h>
#include <string.h>

#ifdef EMULATED
#include "emulated.h"
#endif

typedef uint16_t bfloat;

#define PLACES 32  /* places in one matrix product, two tile registers */
#define MOST_AT_ONCE 512 /* places computed for one group of columns before the next group, so that both stay in the cache */
#define GROUP 64 /* columns whose sums are computed together: the four gates of 16 channels */
#define COLUMNS 32 /* columns in one matrix product, two tile registers */
#define DEPTH 32   /* bfloat16 in a row of a tile register: terms of each sum in one step */

typedef struct {
    int64_t cases, y, x, reach;
} Grid;

/* The sizes of a layer: times and grids; channels of input (0: none) and state, and how far their kernels reach. */
typedef struct {
    int64_t times, cases, y, x, inputs, n, input_reach, state_reach;
} Shape;

static inline int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
static inline int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t row_length(const Grid *g) { return g->x + g->reach; }
static inline int64_t padded_length(const Grid *g) { return g->cases * (g->y + g->reach) * row_length(g); }
/* Returns the number of places that a kernel reaches before the first place of a padded grid, and after the last one. */
static inline int64_t margin(const Grid *g) { return g->reach * row_length(g) + g->reach; }

/* Finds the next run of places without padding in [*from, end) of a padded grid. Returns its length, 0 if there is none; sets
   *from to its start in the padded grid, and *place to its start in the grid without padding. */
static inline int64_t next_run(const Grid *g, int64_t *from, int64_t end, int64_t *place) {
    int64_t length = row_length(g), rows = g->y + g->reach;
    while (*from < end) {
        int64_t row = *from / length, x = *from % length, y = row % rows, grid = row / rows;
        if (grid >= g->cases) return 0;
        if (y < g->y && x < g->x) {
            *place = (grid * g->y + y) * g->x + x;
            return smaller(g->x - x, end - *from);
        }
        *from = (row + 1) * length;
    }
    return 0;
}

static inline int64_t places_of(const Shape *l) { return l->cases * l->y * l->x; }
static inline int64_t widest(const Shape *l) { return l->input_reach > l->state_reach ? l->input_reach : l->state_reach; }

/* The channels of gates are kept in groups of GROUP: of each 16 channels of the state, those of the gates i, f, c, o. */
static inline int64_t groups_of(int64_t n) { return (n + 15) / 16; }

/* Returns the index in groups of one of the 4 × n channels of gates. */
static inline int64_t grouped(int64_t channel, int64_t n) {
    return channel % n / 16 * GROUP + channel / n * 16 + channel % n % 16;
}

/* Returns the first channel of the state among the joined channels: after the input's, rounded up if kernels have two sizes. */
static inline int64_t first_state(const Shape *l) {
    return l->input_reach == l->state_reach ? l->inputs : rounded_up(l->inputs, DEPTH);
}

/* Returns the index in the padded grid of a place of the grid without padding. */
static inline int64_t padded_place(const Grid *g, int64_t place) {
    int64_t row = place / g->x, grid = row / g->y;
    return (row + grid * g->reach) * row_length(g) + place % g->x;
}

typedef struct __attribute__((packed)) {
    uint8_t palette, start_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} TileShapes;

/* Sets up the tile registers of this thread; saves their former shapes to `before`, as other libraries may rely on them. */
static inline void begin_products(TileShapes *before) {
    TileShapes full = {.palette = 1};
    for (int i = 0; i < 8; i++) full.bytes[i] = 64, full.rows[i] = 16;
    _tile_storeconfig(before);
    _tile_loadconfig(&full);
}

static inline void end_products(const TileShapes *before) {
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

/* Multiplies the loaded tile registers: two of places (4, 5) with two of columns (6, 7). Adds to the sums (0 to 3). */
#define MULTIPLY_TILES()        \
    do {                        \
        _tile_dpbf16ps(0, 4, 6); \
        _tile_dpbf16ps(1, 4, 7); \
        _tile_dpbf16ps(2, 5, 6); \
        _tile_dpbf16ps(3, 5, 7); \
    } while (0)

#define ZERO_SUMS()    \
    do {               \
        _tile_zero(0); \
        _tile_zero(1); \
        _tile_zero(2); \
        _tile_zero(3); \
    } while (0)

#define LOAD_SUMS(from)                     \
    do {                                    \
        _tile_loadd(0, (from), 64);         \
        _tile_loadd(2, (from) + 256, 64);   \
        _tile_loadd(1, (from) + 512, 64);   \
        _tile_loadd(3, (from) + 768, 64);   \
    } while (0)

/* Stores 32 × 32 sums as (half of the columns, 32, 16), so that rows of tile registers follow one another. */
#define STORE_SUMS(out)                     \
    do {                                    \
        _tile_stored(0, (out), 64);         \
        _tile_stored(2, (out) + 256, 64);   \
        _tile_stored(1, (out) + 512, 64);   \
        _tile_stored(3, (out) + 768, 64);   \
    } while (0)

/* After so many steps a tile register is stored to memory that nothing reads. On an Intel Xeon the first store after some
   600 ns without one took another 300 ns, half as long as the products of a 3 × 3 convolution of 128 channels. */
#define STEPS_WITHOUT_STORE 12

#define INLINED static inline __attribute__((always_inline))

/* Work left to do on the sums of a convolution: `compute` is called for 16 channels of a place at a time, while the tile
   registers already work on the next places or columns. */
typedef struct {
    int64_t number, vectors;                   /* number of places, and of vectors of 16 channels at each */
    int64_t of_sums[PLACES], place[PLACES];    /* index of a place in the sums, and in the grid without padding */
    int64_t first, group;                      /* first place of the sums in the padded grid; group of columns */
    int64_t index, vector;                     /* the next place and vector to compute */
    int64_t per_step, credit;                  /* vectors to compute in each step of the next convolution, × 1024 */
    float *sums;                               /* (column / 16, place, 16) */
} Rest;

/* Lists the places in [first, end) of a padded grid, with `vectors` to compute at each, spread over about `steps` steps. */
static inline void list_places(Rest *rest, const Grid *g, int64_t first, int64_t end, int64_t group, int64_t vectors,
                               int64_t steps) {
    int64_t from = first, place, run;
    rest->number = rest->index = rest->vector = rest->credit = 0;
    rest->vectors = vectors, rest->first = first, rest->group = group;
    for (; (run = next_run(g, &from, end, &place)); from += run)
        for (int64_t i = 0; i < run; i++) {
            rest->of_sums[rest->number] = from + i - first;
            rest->place[rest->number++] = place + i;
        }
    rest->per_step = steps ? (rest->number * vectors * 1024 + steps - 1) / steps : 0;
}

/* Returns the next place to compute, as an index in the padded grid. */
static inline int64_t padded_now(const Rest *rest) { return rest->first + rest->of_sums[rest->index]; }

/* Computes the next vector of `rest`. */
typedef void Compute(const Rest *rest, const void *with);

INLINED void compute_next(Rest *rest, Compute *compute, const void *with) {
    compute(rest, with);
    if (++rest->vector == rest->vectors) rest->vector = 0, rest->index++;
}

INLINED void compute_rest(Rest *rest, Compute *compute, const void *with) {
    while (rest->index < rest->number) compute_next(rest, compute, with);
}

/* Computes a convolution at PLACES consecutive places of a padded grid. Meanwhile it does the work left on the convolution
   before it (`rest`): vector units and tile registers work side by side.

   at: (place, channel), the first of these places; `stride` channels from one place to the next
   offsets: (step,), number of bfloat16 from the place that is computed
   weights: (block of COLUMNS, all steps, 2 × 512) packed for TDPBF16PS
   sums: (column / 16, place, 16), written
   nowhere: 256 numbers that nothing reads */
INLINED void convolve_places(const bfloat *at, int64_t stride, const int64_t *offsets, int64_t steps, const bfloat *weights,
                             int64_t all_steps, int64_t blocks, float *sums, float *nowhere, Rest *rest, Compute *compute,
                             const void *with) {
    const int64_t row = 2 * stride;
    for (int64_t block = 0; block < blocks; block++) {
        const bfloat *w = weights + block * all_steps * 1024;
        ZERO_SUMS();
        for (int64_t step = 0; step < steps; step++, w += 1024) {
            const bfloat *a = at + offsets[step];
            _tile_loadd(4, a, row);
            _tile_loadd(6, w, 64);
            _tile_loadd(7, w + 512, 64);
            _tile_loadd(5, a + 16 * stride, row);
            MULTIPLY_TILES();
            if (step % STEPS_WITHOUT_STORE == STEPS_WITHOUT_STORE - 1) _tile_stored(4, nowhere, 64);
            for (rest->credit += rest->per_step; rest->credit >= 1024 && rest->index < rest->number; rest->credit -= 1024)
                compute_next(rest, compute, with);
        }
        STORE_SUMS(sums + block * PLACES * COLUMNS);
    }
    compute_rest(rest, compute, with);
}

/* Loads up to 16 bfloat16, those of `mask`, as floats. */
static inline __m512 load_bfloat(__mmask16 mask, const bfloat *from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16));
}

/* Stores up to 16 floats, those of `mask`, rounded to the nearest bfloat16. */
static inline void store_bfloat(bfloat *to, __mmask16 mask, __m512 values) {
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(values));
}

/* Rounds two vectors to 32 bfloat16, the first one first. */
static inline void store_two(bfloat *to, __m512 first, __m512 second) {
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

/* Returns the mask of the first n of 16 channels. */
static inline __mmask16 lanes(int64_t n) { return n >= 16 ? 0xffff : (__mmask16)((1 << n) - 1); }

/* Loads 16 sums of the next place of `rest`. */
static inline __m512 sums_of(const Rest *rest, int64_t vector) {
    return _mm512_loadu_ps(rest->sums + (vector * PLACES + rest->of_sums[rest->index]) * 16);
}

/* Copies n channels; faster than memcpy for as few as these. */
static inline void copy_channels(bfloat *to, const bfloat *from, int64_t n) {
    int64_t c = 0;
    for (; c + 32 <= n; c += 32) _mm512_storeu_si512(to + c, _mm512_loadu_si512(from + c));
    if (c < n) {
        const __mmask32 rest = ((__mmask32)1 << (n - c)) - 1;
        _mm512_mask_storeu_epi16(to + c, rest, _mm512_maskz_loadu_epi16(rest, from + c));
    }
}
