/* A ConvLSTM layer over a whole sequence on a processor with AMX, forward and backward, in bfloat16 (layer.py).

   At each time, and for 32 grid cells at once, the convolution's sums stay in the processor's cache until the gates and states
   have been computed from them. The result does not depend on the number of threads. */

#include "products.h"
#include "gates.h"
#include "weights.h"

#include <sys/syscall.h>
#include <unistd.h>

/* Sizes of a layer: grid; channels of input and state, and those that a convolution adds up; `stride` channels from one place of
   the padded grids to the next; columns of the convolution, and groups of them; places that are computed at once; steps of a sum. */
typedef struct {
    Grid grid;
    int64_t inputs, n, channels, stride, columns, groups, at_once, steps;
} Sizes;

static inline int64_t kernel_taps(int64_t reach) { return (2 * reach + 1) * (2 * reach + 1); }

/* Number of columns in which the channels of a state are. */
static inline int64_t state_columns(int64_t n) { return rounded_up(n, 16); }

/* Places are an odd number of cache lines apart, so that those of a kernel do not share few places of the cache. */
static Sizes sizes_of(Grid grid, int64_t inputs, int64_t n, int64_t channels, int64_t columns, int threads) {
    const int64_t terms = rounded_up(channels, DEPTH);
    const int64_t share = rounded_up((padded_length(&grid) + threads - 1) / threads, PLACES);
    return (Sizes){grid, inputs, n, terms, terms + (terms / DEPTH % 2 ? 0 : DEPTH), rounded_up(columns, COLUMNS),
                   rounded_up(columns, GROUP) / GROUP, smaller(MOST_AT_ONCE, share), kernel_taps(grid.reach) * terms / DEPTH};
}

static inline int64_t grid_size(const Sizes *s) {
    return (2 * margin(&s->grid) + rounded_up(padded_length(&s->grid), PLACES) + MOST_AT_ONCE) * s->stride;
}

/* Returns the first place of the padded grid that is used at a time: one of two, in turn. */
static inline bfloat *padded_at(bfloat *padded, int64_t time, const Sizes *s) {
    return padded + (time & 1) * grid_size(s) + margin(&s->grid) * s->stride;
}

/* Packs a convolution's weight (out channel, channel, y, x) as bfloat16 for `convolve_places`.

   Columns are its out channels, for each 16 channels of the state those of one gate after the other, and terms its channels; or with
   `backward` the reverse, with the kernel rotated by 180°.
   `first_column` and `first_term` are where they begin, `terms` the number of all terms, a multiple of DEPTH.
   packed: (block of COLUMNS, terms / DEPTH, tap, 2, DEPTH / 2, 16, 2), zero where nothing is written */
void pack_weights(const float *weight, bfloat *packed, int64_t outs, int64_t ins, int64_t taps, int64_t backward,
                  int64_t first_column, int64_t first_term, int64_t terms, int threads) {
    const int64_t steps = terms / DEPTH * taps, columns = backward ? ins : outs, own_terms = backward ? outs : ins;
    const int64_t gate = outs / 4; /* channels of each */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j = 0; j < columns; j++) {
        const int64_t column = first_column + (backward ? j : j % gate / 16 * GROUP + j / gate * 16 + j % gate % 16);
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
    const int64_t place = rest->place[rest->index], c = 16 * rest->group, n = f->s.n, at = place * n;
    /* the place in the padded grid of the next time */
    bfloat *next = f->next ? f->next + (rest->first + rest->of_sums[rest->index]) * f->s.stride : 0;
    if (next && f->next_frames && !rest->group) copy_channels(next, f->next_frames + place * f->s.inputs, f->s.inputs);
    forward_lanes(lanes(n - c), c, rest, f->bias + GROUP * rest->group, f->peepholes, f->before ? f->before + at : 0,
                  f->gates ? f->gates + 4 * at : 0, f->cell + at, f->hidden + at, next ? next + f->s.inputs : 0, n);
}

/* Computes a convolution and what follows from it at all places, those of the padded grid in parts of `at_once` that the threads
   share; without a grid to convolve only what follows.

   Returns when all threads are done. Arguments as of `convolve_places`; `vectors`: of all columns at a place */
INLINED void run_step(const Sizes *s, const bfloat *convolved, const int64_t *offsets, int64_t steps, const bfloat *weights,
                      int64_t vectors, int64_t at_once_vectors, Compute *compute, const void *with) {
    const int64_t length = padded_length(&s->grid);
    float sums[2][PLACES * GROUP] __attribute__((aligned(64))), nowhere[256] __attribute__((aligned(64)));
    Rest rests[2];
    int turn = 0;
    rests[1].index = rests[1].number = rests[1].per_step = rests[1].credit = 0;
    rests[0].sums = sums[0], rests[1].sums = sums[1];
#pragma omp for schedule(static) nowait
    for (int64_t part = 0; part < length; part += s->at_once)
        for (int64_t group = 0; group < s->groups; group++)
            for (int64_t first = part; first < smaller(part + s->at_once, length); first += PLACES) {
                Rest *now = &rests[turn], *before = &rests[1 - turn];
                const int64_t blocks = smaller(GROUP, s->columns - group * GROUP) / COLUMNS;
                if (convolved)
                    convolve_places(convolved + first * s->stride, s->stride, offsets, steps,
                                    weights + group * (GROUP / COLUMNS) * s->steps * 1024, s->steps, blocks, now->sums, nowhere, before, compute,
                                    with);
                else
                    compute_rest(before, compute, with);
                list_places(now, &s->grid, first, smaller(first + PLACES, length), group,
                            smaller(at_once_vectors, vectors - group * at_once_vectors), steps * blocks);
                turn = 1 - turn;
            }
    compute_rest(&rests[1 - turn], compute, with);
#pragma omp barrier
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
   bias: (channel / 16, gate, 16), zero where there is no channel
   padded: two padded grids */
void layer_forward(const bfloat *frames, const bfloat *hidden0, const float *cell0, const bfloat *weights,
                   const int64_t *offsets, const float *bias, const float *peepholes, bfloat *gates, float *cells,
                   bfloat *hidden, bfloat *padded, int64_t times, int64_t kept_times, int64_t cases, int64_t y, int64_t x,
                   int64_t reach, int64_t inputs, int64_t n, int threads) {
    const Sizes s = sizes_of((Grid){cases, y, x, reach}, inputs, n, inputs + n, 4 * state_columns(n), threads);
    const int64_t places = cases * y * x, input_steps = kernel_taps(reach) * (rounded_up(inputs, DEPTH) / DEPTH);
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        clear(padded, &s);
        begin_forward(frames, hidden0, padded, &s);
        for (int64_t time = 0; time < times; time++) {
            const ForwardStep with = {frames ? frames + (time + 1) * places * inputs : 0, bias, peepholes,
                                      time ? cells + (time - 1) % kept_times * places * n : cell0,
                                      gates ? gates + time * places * 4 * n : 0, hidden + time * places * n,
                                      time + 1 < times ? padded_at(padded, time + 1, &s) : 0,
                                      cells + time % kept_times * places * n, s};
            run_step(&s, padded_at(padded, time, &s), offsets, time || hidden0 ? s.steps : input_steps, weights, s.groups, 1,
                     compute_forward, &with);
        }
        end_products(&shapes);
    }
}

/* What a time step of the backward pass reads and writes, from its first place on; without `gates` only what `d_state` and
   `d_frames` take of the convolution of the first time. `later`: the gradients of the gates of the time after, NULL if it is the
   last. */
typedef struct {
    const bfloat *later;
    bfloat *gates, *now, *d_frames, *d_state;
    const float *before, *cell, *peepholes;
    const bfloat *d_hidden;
    float *d_cell;
    Sizes s;
} BackwardStep;

INLINED void compute_backward(const Rest *rest, const void *with) {
    const BackwardStep *b = with;
    const int64_t place = rest->place[rest->index], n = b->s.n, at = place * n, c = GROUP * rest->group + 16 * rest->vector;
    const __m512 sums = b->later ? sums_of(rest, rest->vector) : ZERO;
    if (c >= n) {
        const int64_t input = c - state_columns(n), inputs = b->s.inputs;
        if (b->later) store_bfloat(b->d_frames + place * inputs + input, lanes(inputs - input), sums);
    } else if (b->gates) {
        backward_lanes(lanes(n - c), c, b->gates + 4 * at, b->now + (rest->first + rest->of_sums[rest->index]) * b->s.stride,
                       b->before ? b->before + at : 0, b->cell + at, b->peepholes, b->d_hidden + at, sums, b->d_cell + at, n);
    } else if (b->d_state) {
        store_bfloat(b->d_state + at + c, lanes(n - c), sums);
    }
}

/* Computes the gradients of gates, frames and first state of a layer, from the last time to the first.

   gates: (time, place, 4 × n), overwritten by the gradients of their arguments
   cells: (time, place, n); cell0 may be NULL for zeros
   weights, offsets: of `convolve_places`, rotated, the state's channels first; without those of the input if d_frames is NULL
   d_hidden: (time, place, n), gradients of the hidden states from the outputs
   d_cell: (place, n), gradient of the last cell state, overwritten by that of the first
   d_frames: (time, place, input), d_hidden0: (place, n), written; either may be NULL
   padded: two padded grids */
void layer_backward(bfloat *gates, const float *cells, const float *cell0, const float *peepholes, const bfloat *weights,
                    const int64_t *offsets, const bfloat *d_hidden, float *d_cell, bfloat *d_frames, bfloat *d_hidden0,
                    bfloat *padded, int64_t times, int64_t cases, int64_t y, int64_t x, int64_t reach, int64_t inputs, int64_t n,
                    int threads) {
    const int64_t columns = d_frames ? state_columns(n) + inputs : n, places = cases * y * x;
    const Sizes s = sizes_of((Grid){cases, y, x, reach}, inputs, n, 4 * n, columns, threads);
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        clear(padded, &s);
        for (int64_t time = times - 1; time >= (d_frames || d_hidden0 ? -1 : 0); time--) {
            const BackwardStep with = {time + 1 < times ? padded_at(padded, time + 1, &s) : 0,
                                       time >= 0 ? gates + time * places * 4 * n : 0, padded_at(padded, time, &s),
                                       d_frames ? d_frames + (time + 1) * places * inputs : 0, time < 0 ? d_hidden0 : 0,
                                       time > 0 ? cells + (time - 1) * places * n : cell0, cells + time * places * n, peepholes,
                                       d_hidden + time * places * n, d_cell, s};
            run_step(&s, with.later, offsets, s.steps, weights, rounded_up(columns, 16) / 16, GROUP / 16, compute_backward, &with);
        }
        end_products(&shapes);
    }
}

/* Asks Linux to let this process use the tile registers; sets `allowed` to 1 if it does. */
void ask_for_units(int *allowed, int threads) {
    (void)threads;
    *allowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
}
