/* A ConvLSTM layer over a whole sequence on a processor with AMX, forward and backward, in bfloat16 (layer.py).

   At each time, and for 32 grid cells at once, the convolution's sums stay in the processor's cache until the gates and states
   have been computed from them. The result does not depend on the number of threads. Words and sizes: products.h. */

#include "products.h"
#include "gates.h"
#include "weights.h"

#include <sys/syscall.h>
#include <unistd.h>

/* Columns of a convolution that have the same steps: arguments of `convolve_places`, number of columns and of their groups. */
typedef struct {
    const int64_t *offsets;
    const bfloat *weights;
    int64_t steps, columns, groups;
} Part;

static Part part_of(const int64_t *offsets, const bfloat *weights, int64_t steps, int64_t columns) {
    return (Part){offsets, weights, steps, rounded_up(columns, COLUMNS), rounded_up(columns, GROUP) / GROUP};
}

/* Two padded grids, used in turn. There are `stride` channels from one place to the next: an odd number of cache lines, so that
   the places under a kernel do not compete for the same part of the cache. */
typedef struct {
    bfloat *from;
    Grid grid;
    int64_t stride, size;
} Padded;

static Padded padded_of(bfloat *from, const Shape *l, int64_t channels) {
    const Grid grid = {l->cases, l->y, l->x, widest(l)};
    const int64_t whole = rounded_up(channels, DEPTH), stride = whole + (whole / DEPTH % 2 ? 0 : DEPTH);
    const int64_t places = 2 * margin(&grid) + rounded_up(padded_length(&grid), PLACES);
    return (Padded){from, grid, stride, places * stride};
}

/* Returns the first place of the padded grid that is used at time `time`. */
static inline bfloat *padded_at(const Padded *p, int64_t time) {
    return p->from + (time & 1) * p->size + margin(&p->grid) * p->stride;
}

/* Fills both padded grids with zeros. */
static void clear(const Padded *p) {
    const int64_t bytes = 4 * p->size, part = 1 << 16;
#pragma omp for schedule(static)
    for (int64_t from = 0; from < bytes; from += part) memset((char *)p->from + from, 0, smaller(part, bytes - from));
}

/* Packs a convolution's weight (out channel, channel, y, x) as bfloat16 for `convolve_places`.

   Columns are the out channels, grouped (see `grouped`), and terms the channels. With `backward` it is the other way round,
   and the kernel is rotated by 180°. The weight is written from `first_column`, `first_step` and `first_term` on.
   packed: (block of COLUMNS, step, 2, DEPTH / 2, 16, 2), zero where nothing is written; for each DEPTH terms there is a step
   for each tap */
void pack_weights(const float *weight, bfloat *packed, int64_t outs, int64_t ins, int64_t taps, int64_t backward,
                  int64_t first_column, int64_t first_term, int64_t first_step, int64_t steps, int threads) {
    const int64_t columns = backward ? ins : outs, terms = backward ? outs : ins, n = outs / 4;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t j = 0; j < columns; j++) {
        const int64_t column = first_column + (backward ? j : grouped(j, n));
        bfloat *to = packed + ((column / COLUMNS * steps + first_step) * 2 + column % COLUMNS / 16) * 512 + column % 16 * 2;
        for (int64_t k = 0; k < terms; k++) {
            const int64_t term = backward ? grouped(k, n) : first_term + k;
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

/* Computes a convolution at all places, and calls `compute` on its sums. The padded grid is divided among the threads; each
   computes its places group of columns by group. Returns when all threads are done.

   convolved: padded grid, or NULL to call `compute` without a convolution
   columns: two parts, the second of which may have no groups
   steps: number of steps of the first part that are computed
   vectors, of_group: number of calls of `compute` at a place, for all groups of columns and for one */
INLINED void run_step(const Padded *padded, const bfloat *convolved, const Part columns[2], int64_t steps, int64_t vectors,
                      int64_t of_group, Compute *compute, const void *with) {
    const int64_t length = padded_length(&padded->grid), threads = omp_get_num_threads();
    const int64_t rounds = length / (threads * MOST_AT_ONCE) + 1; /* each thread gets as many shares, all of one size */
    const int64_t share = rounded_up(length / (rounds * threads) + 1, PLACES);
    float sums[2][PLACES * GROUP] __attribute__((aligned(64))), nowhere[256] __attribute__((aligned(64)));
    Rest rests[2];
    int turn = 0;
    rests[1].index = rests[1].number = rests[1].per_step = rests[1].credit = 0;
    rests[0].sums = sums[0], rests[1].sums = sums[1];
#pragma omp for schedule(static) nowait
    for (int64_t start = 0; start < length; start += share)
        for (int64_t group = 0; group < columns[0].groups + columns[1].groups; group++) {
            const int64_t second = group >= columns[0].groups, own = group - second * columns[0].groups;
            const Part *part = &columns[second];
            const int64_t blocks = smaller(GROUP, part->columns - own * GROUP) / COLUMNS;
            const bfloat *weights = part->weights + own * (GROUP / COLUMNS) * part->steps * 1024;
            for (int64_t first = start; first < smaller(start + share, length); first += PLACES) {
                Rest *now = &rests[turn], *before = &rests[1 - turn];
                if (convolved)
                    convolve_places(convolved + first * padded->stride, padded->stride, part->offsets,
                                    second ? part->steps : steps, weights, part->steps, blocks, now->sums, nowhere, before,
                                    compute, with);
                else
                    compute_rest(before, compute, with);
                list_places(now, &padded->grid, first, smaller(first + PLACES, length), group,
                            smaller(of_group, vectors - group * of_group), steps * blocks);
                turn = 1 - turn;
            }
        }
    compute_rest(&rests[1 - turn], compute, with);
#pragma omp barrier
}

/* Arrays that a time step of the forward pass reads and writes; pointers to their first place. */
typedef struct {
    const bfloat *next_frames;
    const float *bias, *peepholes, *before;
    bfloat *gates, *hidden, *next;
    float *cell;
    int64_t inputs, n, first_state, stride, group_size;
} ForwardStep;

INLINED void compute_forward(const Rest *rest, const void *with) {
    const ForwardStep *f = with;
    const int64_t place = rest->place[rest->index], c = 16 * rest->group, n = f->n, at = place * n;
    /* the place in the padded grid of the next time */
    bfloat *next = f->next ? f->next + padded_now(rest) * f->stride : 0;
    if (next && f->next_frames && !rest->group) copy_channels(next, f->next_frames + place * f->inputs, f->inputs);
    forward_lanes(lanes(n - c), c, rest, f->bias + GROUP * rest->group, f->peepholes, f->before ? f->before + at : 0,
                  f->gates ? f->gates + rest->group * f->group_size + place * GROUP : 0, f->cell + at, f->hidden + at,
                  next ? next + f->first_state : 0, n);
}

/* Copies the first input and state to the padded grid of the first time. */
static void begin_forward(const Shape *l, const bfloat *frames, const bfloat *hidden0, const Padded *padded) {
#pragma omp for schedule(static)
    for (int64_t place = 0; place < places_of(l); place++) {
        bfloat *to = padded_at(padded, 0) + padded_place(&padded->grid, place) * padded->stride;
        if (frames) copy_channels(to, frames + place * l->inputs, l->inputs);
        if (hidden0) copy_channels(to + first_state(l), hidden0 + place * l->n, l->n);
    }
}

/* Computes gate values, cell states and hidden states of a layer at all times.

   frames: (time, place, input), or NULL
   hidden0, cell0: (place, n), or NULL for zeros
   weights, offsets: as in `convolve_places`, for all `steps`; the first `input_steps` have channels of the input, the others
   of the state alone
   bias: (gate, n); scaled_bias: (channel / 16, gate, 16), written (see `scale_bias`)
   gates: (time, group, place, gate, 16), or NULL if they are not kept
   cells: (kept time, place, n); with fewer kept times than times, they are overwritten in turn
   memory: for two padded grids of the joined channels of input and state */
void layer_forward(const Shape *l, const bfloat *frames, const bfloat *hidden0, const float *cell0, const bfloat *weights,
                   const int64_t *offsets, const float *bias, float *scaled_bias, const float *peepholes, bfloat *gates,
                   float *cells, bfloat *hidden, bfloat *memory, int64_t kept_times, int64_t input_steps, int64_t steps,
                   int threads) {
    const int64_t places = places_of(l), n = l->n;
    const Part columns[2] = {part_of(offsets, weights, steps, groups_of(n) * GROUP)};
    const Padded padded = padded_of(memory, l, first_state(l) + n);
    scale_bias(bias, n, scaled_bias);
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        clear(&padded);
        begin_forward(l, frames, hidden0, &padded);
        for (int64_t time = 0; time < l->times; time++) {
            const ForwardStep with = {frames ? frames + (time + 1) * places * l->inputs : 0, scaled_bias, peepholes,
                                      time ? cells + (time - 1) % kept_times * places * n : cell0,
                                      gates ? gates + time * groups_of(n) * places * GROUP : 0, hidden + time * places * n,
                                      time + 1 < l->times ? padded_at(&padded, time + 1) : 0,
                                      cells + time % kept_times * places * n, l->inputs, n, first_state(l), padded.stride,
                                      places * GROUP};
            run_step(&padded, padded_at(&padded, time), columns, time || hidden0 ? steps : input_steps, columns[0].groups, 1,
                     compute_forward, &with);
        }
        end_products(&shapes);
    }
}

/* Arrays that a time step of the backward pass reads and writes; pointers to their first place.

   later: gradients of the gates at the next time; NULL at the last time
   gates: NULL in the step before the first time, which only writes `d_state` and `d_frames` */
typedef struct {
    const bfloat *later;
    bfloat *gates, *now, *d_frames, *d_state;
    const float *before, *cell, *peepholes;
    const bfloat *d_hidden;
    const float *d_after;
    float *d_cell;
    int64_t inputs, n, state_columns, stride, group_size;
} BackwardStep;

INLINED void compute_backward(const Rest *rest, const void *with) {
    const BackwardStep *b = with;
    const int64_t place = rest->place[rest->index], n = b->n, at = place * n, c = GROUP * rest->group + 16 * rest->vector;
    const __m512 sums = b->later ? sums_of(rest, rest->vector) : ZERO;
    if (c >= b->state_columns) {
        const int64_t input = c - b->state_columns;
        if (b->later) store_bfloat(b->d_frames + place * b->inputs + input, lanes(b->inputs - input), sums);
    } else if (c < n && b->gates) {
        bfloat *now = b->now + padded_now(rest) * b->stride + c / 16 * GROUP;
        backward_lanes(lanes(n - c), c, b->gates + c / 16 * b->group_size + place * GROUP, now,
                       b->before ? b->before + at : 0, b->cell + at, b->peepholes, b->d_hidden + at, sums,
                       b->d_after ? b->d_after + at : 0, b->d_cell + at, n);
    } else if (c < n && b->d_state) {
        store_bfloat(b->d_state + at + c, lanes(n - c), sums);
    }
}

/* Computes the gradients of gates, frames and first state of a layer, from the last time to the first.

   gates: (time, group, place, gate, 16), overwritten by the gradients of their arguments
   cells: (time, place, n); cell0 may be NULL for zeros
   weights, offsets: as in `convolve_places`, with rotated kernels, for the channels of the state; and for those of the input
   if both kernels have one size
   input_weights, input_offsets: for the channels of the input, if its kernel has another size
   d_hidden: (time, place, n), gradients of the hidden states from the outputs
   d_last_cell: (place, n), gradient of the last cell state, or NULL for zeros; d_cell: that of the first one, written
   d_frames: (time, place, input), d_hidden0: (place, n), written; either may be NULL
   memory: for two padded grids of the gates' gradients */
void layer_backward(const Shape *l, bfloat *gates, const float *cells, const float *cell0, const float *peepholes,
                    const bfloat *weights, const int64_t *offsets, const bfloat *input_weights, const int64_t *input_offsets,
                    const bfloat *d_hidden, const float *d_last_cell, float *d_cell, bfloat *d_frames, bfloat *d_hidden0,
                    bfloat *memory, int64_t steps, int64_t input_steps, int threads) {
    const int64_t places = places_of(l), n = l->n, state_columns = rounded_up(n, input_weights ? GROUP : 16);
    const int64_t with_input = d_frames ? state_columns + l->inputs : n;
    const Part columns[2] = {part_of(offsets, weights, steps, input_weights ? n : with_input),
                             part_of(input_offsets, input_weights, input_steps, input_weights ? l->inputs : 0)};
    const Padded padded = padded_of(memory, l, groups_of(n) * GROUP);
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        clear(&padded);
        for (int64_t time = l->times - 1; time >= (d_frames || d_hidden0 ? -1 : 0); time--) {
            const BackwardStep with = {time + 1 < l->times ? padded_at(&padded, time + 1) : 0,
                                       time >= 0 ? gates + time * groups_of(n) * places * GROUP : 0, padded_at(&padded, time),
                                       d_frames ? d_frames + (time + 1) * places * l->inputs : 0, time < 0 ? d_hidden0 : 0,
                                       time > 0 ? cells + (time - 1) * places * n : cell0, cells + time * places * n, peepholes,
                                       d_hidden + time * places * n, time + 1 < l->times ? d_cell : d_last_cell, d_cell,
                                       l->inputs, n, state_columns, padded.stride, places * GROUP};
            run_step(&padded, with.later, columns, steps, rounded_up(with_input, 16) / 16, GROUP / 16, compute_backward, &with);
        }
        end_products(&shapes);
    }
}

/* Asks Linux to let this process use the tile registers; sets `allowed` to 1 if it does. */
void ask_for_units(int *allowed, int threads) {
    (void)threads;
    *allowed = syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* XFEATURE_XTILEDATA */) == 0;
}
