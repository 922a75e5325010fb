/* A ConvLSTM layer over a whole sequence on a processor with AMX, forward and backward, in bfloat16 (layer.py).

   At each time, and for 32 grid cells at once, the convolution's sums stay in the processor's cache until the gates and states
   have been computed from them. The result does not depend on the number of threads. */

#include "products.h"
#include "gates.h"
#include "weights.h"

#include <sys/syscall.h>
#include <unistd.h>

/* Sizes of a layer: grid; channels of input and state, and those that a convolution adds up; `stride` channels from one place of
   the padded grids to the next; columns of the convolution; places that are computed at once. */
typedef struct {
    Grid grid;
    int64_t inputs, n, channels, stride, columns, at_once;
} Sizes;

static inline int64_t kernel_taps(int64_t reach) { return (2 * reach + 1) * (2 * reach + 1); }

#define BYTES_IN_CACHE 1000000 /* of weights, that are read for each group of places; larger ones are read for several at once */

/* Places are an odd number of cache lines apart, so that those of a kernel do not share few places of the cache. */
static Sizes sizes_of(Grid grid, int64_t inputs, int64_t n, int64_t channels, int64_t columns, int threads) {
    const int64_t terms = rounded_up(channels, DEPTH), all = rounded_up(columns, COLUMNS);
    const int64_t most = rounded_up((padded_length(&grid) + threads - 1) / threads, PLACES);
    const int64_t at_once = 2 * kernel_taps(grid.reach) * terms * all > BYTES_IN_CACHE ? MOST_AT_ONCE : PLACES;
    return (Sizes){grid, inputs, n, terms, terms + (terms / DEPTH % 2 ? 0 : DEPTH), all, smaller(at_once, most)};
}

static inline int64_t grid_size(const Sizes *s) {
    return (2 * margin(&s->grid) + rounded_up(padded_length(&s->grid), PLACES) + MOST_AT_ONCE) * s->stride;
}

/* Returns the first place of the padded grid that is used at a time: one of two, in turn. */
static inline bfloat *padded_at(bfloat *padded, int64_t time, const Sizes *s) {
    return padded + (time & 1) * grid_size(s) + margin(&s->grid) * s->stride;
}

/* Packs a convolution's weight (out channel, channel, y, x) as bfloat16 for `convolve_places`.

   Columns are its out channels, those of each gate from a multiple of 16 on, and terms its channels; or with `backward` the reverse,
   with the kernel rotated by 180°.
   `first_column` and `first_term` are where they begin, `terms` the number of all terms, a multiple of DEPTH.
   packed: (block of COLUMNS, terms / DEPTH, tap, 2, DEPTH / 2, 16, 2), zero where nothing is written */
void pack_weights(const float *weight, bfloat *packed, int64_t outs, int64_t ins, int64_t taps, int64_t backward,
                  int64_t first_column, int64_t first_term, int64_t terms, int threads) {
    const int64_t steps = terms / DEPTH * taps, columns = backward ? ins : outs, own_terms = backward ? outs : ins;
    const int64_t gate = outs / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j = 0; j < columns; j++) {
        const int64_t column = first_column + (backward ? j : j / gate * gate_columns(gate) + j % gate);
        bfloat *to = packed + (column / COLUMNS * steps * 2 + column % COLUMNS / 16) * 512 + column % 16 * 2;
        for (int64_t k = 0; k < own_terms; k++) {
            const int64_t term = first_term + k;
            const float *from = weight + (backward ? k * ins + j : j * ins + k) * taps;
            bfloat *first = to + term / DEPTH * taps * 1024 + term % DEPTH / 2 * 32 + term % 2, values[16];
            for (int64_t tap = 0; tap < taps; tap += 16) {
                const int64_t number = smaller(16, taps - tap);
                store_bfloat(values, 0xffff, _mm512_maskz_loadu_ps(lanes(number), from + tap));
                for (int64_t i = 0; i < number; i++) first[(backward ? taps - 1 - tap - i : tap + i) * 1024] = values[i];
            }
        }
    }
}

/* What a time step of the forward pass reads and writes, from its first place on. */
typedef struct {
    const bfloat *next_frames;
    const float *bias, *peepholes, *before;
    bfloat *gates, *hidden, *next;
    float *cell;
    Sizes s;
} ForwardStep;

INLINED void compute_forward(const Rest *rest, const void *with) {
    const ForwardStep *f = with;
    const int64_t place = rest->place[rest->index], c = 16 * rest->vector, n = f->s.n, at = place * n;
    const float *sums = sums_at(rest->sums, rest->of_sums[rest->index], f->s.columns);
    /* the place in the padded grid of the next time, as far from the first one as in that of this time */
    bfloat *next = f->next ? f->next + (rest->first + rest->of_sums[rest->index]) * f->s.stride : 0;
    if (next && f->next_frames && !rest->vector) copy_channels(next, f->next_frames + place * f->s.inputs, f->s.inputs);
#define FORWARD(mask)                                                                                       \
    forward_lanes((mask), c, sums, f->bias, f->peepholes, f->before ? f->before + at : 0,                       \
                  f->gates ? f->gates + 4 * at : 0, f->cell + at, f->hidden + at, next ? next + f->s.inputs : 0, n)
    if (c + 16 <= n)
        FORWARD(0xffff);
    else
        FORWARD(lanes(n - c));
#undef FORWARD
}

/* Fills both padded grids with zeros. */
static void clear(bfloat *padded, const Sizes *s) {
    const int64_t bytes = 4 * grid_size(s), part = 1 << 16;
#pragma omp for schedule(static)
    for (int64_t from = 0; from < bytes; from += part) memset((char *)padded + from, 0, smaller(part, bytes - from));
}

/* Copies the first input and state to the padded grid of the first time. */
static void begin_forward(const bfloat *frames, const bfloat *hidden0, bfloat *padded, const Sizes *s) {
#pragma omp for schedule(static)
    for (int64_t place = 0; place < s->grid.cases * s->grid.y * s->grid.x; place++) {
        bfloat *to = padded_at(padded, 0, s) + padded_place(&s->grid, place) * s->stride;
        if (frames) copy_channels(to, frames + place * s->inputs, s->inputs);
        if (hidden0) copy_channels(to + s->inputs, hidden0 + place * s->n, s->n);
    }
}

/* Computes gate values, cell states and hidden states of a layer at all times.

   frames: (time, place, input), or NULL
   hidden0, cell0: (place, n), or NULL for zeros
   weights, offsets: of `convolve_places`, those of the input's channels first
   gates: (time, place, 4 × n), or NULL if they are not to be kept
   cells: (kept time, place, n); with fewer kept times than times, they are used in turn
   bias: (gate, gate_columns), zero where there is no channel
   padded: two padded grids; sums: (thread, 2, MOST_AT_ONCE × columns) */
void layer_forward(const bfloat *frames, const bfloat *hidden0, const float *cell0, const bfloat *weights,
                   const int64_t *offsets, const float *bias, const float *peepholes, bfloat *gates, float *cells,
                   bfloat *hidden, bfloat *padded, float *sums, int64_t times, int64_t kept_times, int64_t cases, int64_t y,
                   int64_t x, int64_t reach, int64_t inputs, int64_t n, int threads) {
    const Sizes s = sizes_of((Grid){cases, y, x, reach}, inputs, n, inputs + n, 4 * gate_columns(n), threads);
    const int64_t length = padded_length(&s.grid), places = cases * y * x, blocks = s.columns / COLUMNS, groups = s.at_once / PLACES;
    const int64_t steps = kernel_taps(reach) * s.channels / DEPTH;
    const int64_t input_steps = kernel_taps(reach) * (rounded_up(inputs, DEPTH) / DEPTH);
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        float *out = sums + omp_get_thread_num() * 2 * MOST_AT_ONCE * s.columns, nowhere[256] __attribute__((aligned(64)));
        Rest rests[2];
        clear(padded, &s);
        begin_forward(frames, hidden0, padded, &s);
        for (int64_t time = 0; time < times; time++) {
            const bfloat *now = padded_at(padded, time, &s);
            const ForwardStep with = {frames ? frames + (time + 1) * places * inputs : 0, bias, peepholes,
                                      time ? cells + (time - 1) % kept_times * places * n : cell0,
                                      gates ? gates + time * places * 4 * n : 0, hidden + time * places * n,
                                      time + 1 < times ? padded_at(padded, time + 1, &s) : 0,
                                      cells + time % kept_times * places * n, s};
            const int64_t of_sum = time || hidden0 ? steps : input_steps;
            int turn = 0;
            rests[1].index = rests[1].number = rests[1].per_step = rests[1].credit = 0;
#pragma omp for schedule(static) nowait
            for (int64_t block = 0; block < length; block += s.at_once) {
                rests[turn].sums = out + turn * MOST_AT_ONCE * s.columns;
                convolve_places(now + block * s.stride, s.stride, offsets, of_sum, weights, steps, blocks, groups,
                                rests[turn].sums, nowhere, &rests[1 - turn], compute_forward, &with);
                list_places(&rests[turn], &s.grid, block, smaller(block + s.at_once, length), gate_columns(n) / 16,
                            of_sum * blocks * groups + 1);
                turn = 1 - turn;
            }
            compute_rest(&rests[1 - turn], compute_forward, &with);
#pragma omp barrier
        }
        end_products(&shapes);
    }
}

/* What a time step of the backward pass reads and writes, from its first place on; without `gates` only what `d_state` and
   `d_frames` take of the convolution of the first time. */
typedef struct {
    bfloat *gates, *now, *d_frames, *d_state;
    const float *before, *cell, *peepholes;
    const bfloat *d_hidden;
    float *d_cell;
    Sizes s;
} BackwardStep;

INLINED void compute_backward(const Rest *rest, const void *with) {
    const BackwardStep *b = with;
    const int64_t place = rest->place[rest->index], n = b->s.n, at = place * n, c = 16 * rest->vector;
    const float *sums = rest->sums ? sums_at(rest->sums, rest->of_sums[rest->index], b->s.columns) : 0;
    if (c >= n) {
        const int64_t input = c - gate_columns(n), inputs = b->s.inputs;
        if (sums) store_bfloat(b->d_frames + place * inputs + input, lanes(inputs - input), sums_of(sums, c));
    } else if (b->gates) {
        backward_lanes(c + 16 <= n ? 0xffff : lanes(n - c), c, b->gates + 4 * at,
                       b->now + (rest->first + rest->of_sums[rest->index]) * b->s.stride, b->before ? b->before + at : 0, b->cell + at,
                       b->peepholes, b->d_hidden + at, sums, b->d_cell + at, n);
    } else if (b->d_state) {
        store_bfloat(b->d_state + at + c, lanes(n - c), sums_of(sums, c));
    }
}

/* Computes the gradients of gates, frames and first state of a layer, from the last time to the first.

   gates: (time, place, 4 × n), overwritten by the gradients of their arguments
   cells: (time, place, n); cell0 may be NULL for zeros
   weights, offsets: of `convolve_places`, rotated, the state's channels first; without those of the input if d_frames is NULL
   d_hidden: (time, place, n), gradients of the hidden states from the outputs
   d_cell: (place, n), gradient of the last cell state, overwritten by that of the first
   d_frames: (time, place, input), d_hidden0: (place, n), written; either may be NULL
   padded, sums: as of `layer_forward` */
void layer_backward(bfloat *gates, const float *cells, const float *cell0, const float *peepholes, const bfloat *weights,
                    const int64_t *offsets, const bfloat *d_hidden, float *d_cell, bfloat *d_frames, bfloat *d_hidden0,
                    bfloat *padded, float *sums, int64_t times, int64_t cases, int64_t y, int64_t x, int64_t reach,
                    int64_t inputs, int64_t n, int threads) {
    const int64_t columns = d_frames ? gate_columns(n) + inputs : n;
    const Sizes s = sizes_of((Grid){cases, y, x, reach}, inputs, n, 4 * n, columns, threads);
    const int64_t length = padded_length(&s.grid), places = cases * y * x, blocks = s.columns / COLUMNS, groups = s.at_once / PLACES;
    const int64_t steps = kernel_taps(reach) * s.channels / DEPTH, last = d_frames || d_hidden0 ? -1 : 0;
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        float *out = sums + omp_get_thread_num() * 2 * MOST_AT_ONCE * s.columns, nowhere[256] __attribute__((aligned(64)));
        Rest rests[2];
        clear(padded, &s);
        for (int64_t time = times - 1; time >= last; time--) {
            const bfloat *later = time + 1 < times ? padded_at(padded, time + 1, &s) : 0;
            const BackwardStep with = {time >= 0 ? gates + time * places * 4 * n : 0, padded_at(padded, time, &s),
                                       d_frames ? d_frames + (time + 1) * places * inputs : 0, time < 0 ? d_hidden0 : 0,
                                       time > 0 ? cells + (time - 1) * places * n : cell0, cells + time * places * n, peepholes,
                                       d_hidden + time * places * n, d_cell, s};
            int turn = 0;
            rests[1].index = rests[1].number = rests[1].per_step = rests[1].credit = 0;
#pragma omp for schedule(static) nowait
            for (int64_t block = 0; block < length; block += s.at_once) {
                rests[turn].sums = later ? out + turn * MOST_AT_ONCE * s.columns : 0;
                if (later)
                    convolve_places(later + block * s.stride, s.stride, offsets, steps, weights, steps, blocks, groups,
                                    rests[turn].sums, nowhere, &rests[1 - turn], compute_backward, &with);
                compute_rest(&rests[1 - turn], compute_backward, &with);
                list_places(&rests[turn], &s.grid, block, smaller(block + s.at_once, length), rounded_up(columns, 16) / 16,
                            steps * blocks * groups);
                turn = 1 - turn;
            }
            compute_rest(&rests[1 - turn], compute_backward, &with);
#pragma omp barrier
        }
        end_products(&shapes);
    }
}

/* Asks Linux to let this process use the tile registers; sets `allowed` to 1 if it does. */
void ask_for_units(int *allowed, int threads) {
    (void)threads;
    *allowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
}
