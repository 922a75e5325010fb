/* Convolutions by Winograd's algorithm F(TILE x TILE, KERNEL x KERNEL), see winograd.py. The stride is 1, the padding is zero, and
   the output has the grid of the input.

   Images are (case, y, x, channel). A tile is TILE x TILE cells of the output; it depends on POINTS x POINTS cells of the input.
   TILE, KERNEL and the matrices INPUT (B^T), OUTPUT (A^T) and GRADIENT (A) are macros on the compiler's command line, so that
   multiplications by zero are left out. Each sum is computed in the same order for any number of threads. */

#include <omp.h>
#include <stdint.h>
#include <string.h>

#define POINTS (TILE + KERNEL - 1)
#define SQUARE (POINTS * POINTS)
#ifdef __AVX512F__
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define ROWS 6 /* rows of a matrix product computed at once: ROWS x PANEL sums fit in the registers */
#define PANEL (2 * LANES) /* columns of a matrix product computed at once */
#define PART 32 /* number of terms of a partial sum */
#define PAD 16 /* numbers added to each row: rows a power of two apart would share a few lines of the CPU's cache */
#define INLINED static inline __attribute__((always_inline))

/* a vector of the CPU */
typedef float lanes __attribute__((vector_size(4 * LANES)));
/* a tile: the image, the tile's first row and column, and the size of the image */
typedef struct {
    float *image;
    int64_t top, left, y, x, channels;
} place;

static const float input[POINTS][POINTS] = INPUT, output[TILE][POINTS] = OUTPUT, gradient[POINTS][TILE] = GRADIENT;

const int panel = PANEL; /* read by winograd.py */

/* Loads the first n numbers, at most LANES; the others are 0. */
INLINED lanes load(const float *from, int64_t n) {
    lanes v = {0};
    memcpy(&v, from, n >= LANES ? sizeof v : 4 * n);
    return v;
}

INLINED void store(float *to, lanes v, int64_t n) { memcpy(to, &v, n >= LANES ? sizeof v : 4 * n); }

/* Rounds n up to a multiple. */
INLINED int64_t up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

INLINED int64_t number_of_tiles(int64_t cases, int64_t y, int64_t x) { return cases * (up(y, TILE) / TILE) * (up(x, TILE) / TILE); }

INLINED place place_of(int64_t tile, const float *values, int64_t y, int64_t x, int64_t channels) {
    int64_t across = up(x, TILE) / TILE, down = up(y, TILE) / TILE;
    float *image = (float *)values + tile / (across * down) * y * x * channels;
    return (place){image, tile / across % down * TILE, tile % across * TILE, y, x, channels};
}

/* Computes out[r] = sum over c of matrix[r][c] in[c]. */
INLINED void combine(const float *matrix, int rows, int columns, const lanes *in, int in_step, lanes *out, int out_step) {
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) {
        lanes sum = {0};
#pragma GCC unroll 8
        for (int c = 0; c < columns; c++)
            if (matrix[r * columns + c] != 0) sum += matrix[r * columns + c] * in[c * in_step];
        out[r * out_step] = sum;
    }
}

/* Transforms a tile: computes matrix d matrix^T, where d are `side` x `side` cells of the image, zero outside it. d begins
   `before` cells above and to the left of the tile. The channels of each pair of points are written to out + pair * step. */
INLINED void spread(const float *matrix, int side, int before, place at, float *out, int64_t step) {
    for (int64_t channel = 0; channel < at.channels; channel += PANEL) {
        lanes values[2][SQUARE], half[SQUARE], whole[POINTS];
        int64_t n = at.channels - channel;
        for (int i = 0; i < side; i++)
            for (int j = 0; j < side; j++) {
                int64_t row = at.top + i - before, column = at.left + j - before;
                int inside = row >= 0 && row < at.y && column >= 0 && column < at.x;
                const float *from = at.image + (row * at.x + column) * at.channels + channel;
                values[0][i * side + j] = inside ? load(from, n) : (lanes){0};
                values[1][i * side + j] = inside && n > LANES ? load(from + LANES, n - LANES) : (lanes){0};
            }
        for (int part = 0; part < 2 && n > 0; part++, n -= LANES) {
            float *to = out + channel + part * LANES;
            for (int j = 0; j < side; j++) combine(matrix, POINTS, side, values[part] + j, side, half + j, side);
            for (int i = 0; i < POINTS; i++) {
                combine(matrix, POINTS, side, half + i * side, 1, whole, 1);
#pragma GCC unroll 8
                for (int j = 0; j < POINTS; j++) store(to + (i * POINTS + j) * step, whole[j], n);
            }
        }
    }
}

/* Transforms back: computes A^T m A for PANEL channels from `channel` on, and writes the cells of the tile that lie in the
   image. */
INLINED void gather(const float *m, place at, int64_t channel) {
    for (int64_t part = 0, n = at.channels - channel; part < 2 && n > 0; part++, n -= LANES) {
        lanes column[POINTS], half[TILE * POINTS], whole[TILE];
        for (int j = 0; j < POINTS; j++) {
#pragma GCC unroll 8
            for (int i = 0; i < POINTS; i++) column[i] = load(m + (i * POINTS + j) * PANEL + part * LANES, LANES);
            combine(output[0], TILE, POINTS, column, 1, half + j, POINTS);
        }
        for (int i = 0; i < TILE && at.top + i < at.y; i++) {
            float *to = at.image + ((at.top + i) * at.x + at.left) * at.channels + channel + part * LANES;
            combine(output[0], TILE, POINTS, half + i * POINTS, 1, whole, 1);
#pragma GCC unroll 4
            for (int j = 0; j < TILE; j++)
                if (at.left + j < at.x) store(to + j * at.channels, whole[j], n);
        }
    }
}

/* Computes a matrix product of ROWS x PANEL numbers: m = or, with `add`, m += the sum of n outer products of a column of `v` and
   a row of `u`. The sum is made of partial sums of PART terms, which have smaller rounding errors than one long sum. */
INLINED void multiply(const float *v, int64_t v_row, int64_t v_step, const float *u, int64_t u_step, int64_t n, float *m,
                      int64_t m_row, int add) {
    for (int64_t first = 0; first < n; first += PART, add = 1) {
        int64_t end = first + PART < n ? first + PART : n;
        lanes sum[ROWS][2] = {0};
        for (int64_t i = first; i < end; i++) {
            lanes left = load(u + i * u_step, LANES), right = load(u + i * u_step + LANES, LANES);
#pragma GCC unroll 8
            for (int r = 0; r < ROWS; r++) {
                float factor = v[r * v_row + i * v_step];
                sum[r][0] += factor * left, sum[r][1] += factor * right;
            }
        }
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
            for (int part = 0; part < 2; part++) {
                float *to = m + r * m_row + part * LANES;
                store(to, add ? load(to, LANES) + sum[r][part] : sum[r][part], LANES);
            }
    }
}

/* Convolves the images `one` and `two`, joined along their channels, and writes `out`. `two` may be NULL, which stands for
   zeros. `weights` are (panel, pair of points, channel, PANEL). A thread transforms `block` tiles at once, a multiple of ROWS.
   `scratch` has room for threads * block * SQUARE * (channels + PAD + PANEL) numbers. */
void convolve(const float *one, int64_t one_channels, const float *two, int64_t two_channels, const float *weights, float *out,
              int64_t out_channels, int64_t cases, int64_t y, int64_t x, int64_t block, float *scratch, int threads) {
    int64_t tiles = number_of_tiles(cases, y, x), all = one_channels + two_channels, channels = two ? all : one_channels;
    int64_t step = all + PAD, row = SQUARE * step;
#pragma omp parallel num_threads(threads)
    {
        float *v = scratch + omp_get_thread_num() * block * SQUARE * (step + PANEL), *m = v + block * row;
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < tiles; first += block) {
            int64_t n = tiles - first < block ? tiles - first : block;
            for (int64_t t = 0; t < n; t++) {
                spread(input[0], POINTS, KERNEL / 2, place_of(first + t, one, y, x, one_channels), v + t * row, step);
                if (two) {
                    place at = place_of(first + t, two, y, x, two_channels);
                    spread(input[0], POINTS, KERNEL / 2, at, v + t * row + one_channels, step);
                }
            }
            for (int64_t k = 0; k < out_channels; k += PANEL) {
                for (int64_t p = 0; p < SQUARE; p++)
                    for (int64_t t = 0; t < n; t += ROWS)
                        multiply(v + t * row + p * step, row, 1, weights + (k * SQUARE + p * PANEL) * all, PANEL, channels,
                                 m + (t * SQUARE + p) * PANEL, SQUARE * PANEL, 0);
                for (int64_t t = 0; t < n; t++) gather(m + t * SQUARE * PANEL, place_of(first + t, out, y, x, out_channels), k);
            }
        }
    }
}

/* Adds the gradient of the transformed weights to `total` (pair of points, channel, output channel), where the channels are
   rounded up to a multiple of ROWS and the output channels to one of PANEL. `scratch` has room for SQUARE * block * (channels +
   output channels + 2 PAD) numbers, rounded up likewise. */
void weight_gradient(const float *values, int64_t channels, const float *d_out, int64_t out_channels, float *total,
                     int64_t cases, int64_t y, int64_t x, int64_t block, float *scratch, int threads) {
    int64_t tiles = number_of_tiles(cases, y, x), rows = up(channels, ROWS), columns = up(out_channels, PANEL);
    int64_t v_step = rows + PAD, d_step = columns + PAD;
    float *v = scratch, *d = scratch + SQUARE * block * v_step;
#pragma omp parallel num_threads(threads)
    for (int64_t first = 0; first < tiles; first += block) {
        int64_t n = tiles - first < block ? tiles - first : block;
#pragma omp for schedule(dynamic, 8)
        for (int64_t t = 0; t < n; t++) {
            spread(input[0], POINTS, KERNEL / 2, place_of(first + t, values, y, x, channels), v + t * v_step, block * v_step);
            spread(gradient[0], TILE, 0, place_of(first + t, d_out, y, x, out_channels), d + t * d_step, block * d_step);
        }
#pragma omp for schedule(dynamic)
        for (int64_t p = 0; p < SQUARE; p++)
            for (int64_t k = 0; k < columns; k += PANEL)
                for (int64_t c = 0; c < rows; c += ROWS)
                    multiply(v + p * block * v_step + c, 1, v_step, d + p * block * d_step + k, d_step, n,
                             total + (p * rows + c) * columns + k, columns, 1);
    }
}
