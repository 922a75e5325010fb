/* The gradient of a layer's weights and bias on AMX, over all times at once.

   It is a matrix product over places: the gates' gradients times the joined channels of input and state, shifted by each tap
   of the kernel. For that, gradients are transposed to (gate, place). Joined channels are put in pairs of places, once in pairs
   that begin at an even place and once in pairs that begin at an odd one, as a tap may shift by either. So every row of a tile
   register is one cache line. Sums are in the same order for any number of threads. */

/* Transposes 16 × 16 numbers of 32 bits. */
static inline void transpose16(__m512i v[16]) {
    __m512i w[16];
    for (int i = 0; i < 16; i += 2) {
        w[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        w[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            v[i + 2 * j] = _mm512_unpacklo_epi64(w[i + j], w[i + j + 2]);
            v[i + 2 * j + 1] = _mm512_unpackhi_epi64(w[i + j], w[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            w[i + j] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0x88);
            w[i + j + 4] = _mm512_shuffle_i32x4(v[i + j], v[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        v[j] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0x88);
        v[j + 8] = _mm512_shuffle_i32x4(w[j], w[j + 8], 0xdd);
    }
}

/* Reads 16 channels at two places as pairs: (16, 2). */
static inline __m512i pairs(const bfloat *one, const bfloat *two) {
    __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)one));
    __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)two));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

/* Transposes (PLACES, channel) to (channel, place), with `width` places in a row. */
static inline void transpose_places(const bfloat *from, int64_t channels, bfloat *to, int64_t width) {
    for (int64_t c = 0; c < channels; c += 16) {
        __m512i v[16];
        for (int i = 0; i < 16; i++) v[i] = pairs(from + 2 * i * channels + c, from + (2 * i + 1) * channels + c);
        transpose16(v);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + (c + i) * width, v[i]);
    }
}

/* Writes (PLACES, channel) as pairs of places, (channel / 16, pair, 16, 2) with `all_pairs` pairs. */
static inline void pair_places(const bfloat *from, int64_t channels, bfloat *to, int64_t all_pairs) {
    for (int64_t c = 0; c < channels; c += 16)
        for (int i = 0; i < PLACES / 2; i++) {
            const bfloat *one = from + 2 * i * channels + c;
            _mm512_storeu_si512(to + (c / 16 * all_pairs + i) * 32, pairs(one, one + channels));
        }
}

/* Sums each channel of (PLACES, channel) over the places. */
static inline void add_places(const bfloat *from, int64_t channels, float *totals) {
    for (int64_t c = 0; c < channels; c += 16) {
        __m512 sums[4] = {ZERO, ZERO, ZERO, ZERO}; /* so that additions need not wait for one another */
        for (int i = 0; i < PLACES; i++) sums[i % 4] = _mm512_add_ps(sums[i % 4], load_bfloat(0xffff, from + i * channels + c));
        _mm512_storeu_ps(totals + c, _mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])));
    }
}

#define PLACES_IN_CACHE 256 /* places that all taps of a kernel are computed for before the next ones, read from the L1 cache */

/* Adds the products of 32 rows and 32 columns, summed over places, to `sums` (column / 16, row, 16); with `anew`, to zeros. */
static inline void add_products(const bfloat *rows, int64_t width, const bfloat *columns, int64_t all_pairs, int64_t places,
                                int anew, float *sums, float *nowhere) {
    if (anew)
        ZERO_SUMS();
    else
        LOAD_SUMS(sums);
    for (int64_t p = 0, step = 1; p < places; p += DEPTH, step++) {
        _tile_loadd(4, rows + p, 2 * width);
        _tile_loadd(6, columns + 16 * p, 64);
        _tile_loadd(7, columns + 16 * p + 32 * all_pairs, 64);
        _tile_loadd(5, rows + 16 * width + p, 2 * width);
        MULTIPLY_TILES();
        if (step % STEPS_WITHOUT_STORE == 0) _tile_stored(6, nowhere, 64);
    }
    STORE_SUMS(sums);
}

/* Arrays that `layer_weights` reads, and their sizes: places of one time, channels rounded up to 32, all times as one grid. */
typedef struct {
    const bfloat *d_gates, *frames, *hidden, *hidden0;
    int64_t inputs, n, first_state, places, channels, gates;
    Grid all;
} Layer;

/* Copies the joined channels of `number` places, from `start` on in the padded grid of all times, to `stage`; zeros in the
   padding. Channels of `stage` beyond those of input and state are not written. */
static inline void stage_joined(const Layer *l, int64_t start, int64_t number, bfloat *stage) {
    int64_t from = start < 0 ? 0 : start, done = start, place, run;
    for (; (run = next_run(&l->all, &from, start + number, &place)); done = from += run) {
        memset(stage + (done - start) * l->channels, 0, 2 * (from - done) * l->channels);
        for (int64_t p = place; p < place + run; p++) {
            bfloat *to = stage + (from + p - place - start) * l->channels;
            const bfloat *state = p >= l->places ? l->hidden + (p - l->places) * l->n : l->hidden0 ? l->hidden0 + p * l->n : 0;
            if (l->frames) copy_channels(to, l->frames + p * l->inputs, l->inputs);
            if (state)
                copy_channels(to + l->first_state, state, l->n);
            else
                memset(to + l->first_state, 0, 2 * l->n);
        }
    }
    memset(stage + (done - start) * l->channels, 0, 2 * (start + number - done) * l->channels);
}

/* Copies the gradients of the gates at PLACES places, from `start` on in that grid, to `stage`; zeros in the padding. */
static inline void stage_gates(const Layer *l, int64_t start, bfloat *stage) {
    int64_t from = start, done = start, place, run;
    for (; (run = next_run(&l->all, &from, start + PLACES, &place)); done = from += run) {
        const int64_t time = place / l->places, of_time = place % l->places; /* a run is in one grid */
        memset(stage + (done - start) * l->gates, 0, 2 * (from - done) * l->gates);
        for (int64_t group = 0; group < l->gates / GROUP; group++) {
            const bfloat *of = l->d_gates + ((time * (l->gates / GROUP) + group) * l->places + of_time) * GROUP;
            for (int64_t i = 0; i < run; i++)
                copy_channels(stage + (from + i - start) * l->gates + group * GROUP, of + i * GROUP, GROUP);
        }
    }
    memset(stage + (done - start) * l->gates, 0, 2 * (start + PLACES - done) * l->gates);
}

/* Adds the sums over each PLACES places, (number, grouped channels of gates), to the bias gradients (gate, n); with `anew`, to
   zeros. */
static inline void add_totals(const Layer *l, const float *totals, int64_t number, int anew, float *d_bias) {
#pragma omp for schedule(static) nowait
    for (int64_t c = 0; c < 4 * l->n; c++) {
        float sum = anew ? 0 : d_bias[c];
        for (int64_t i = 0; i < number; i++) sum += totals[i * l->gates + grouped(c, l->n)];
        d_bias[c] = sum;
    }
}

/* Writes the sums (tap, gate / 32, channel / 32, 2, 32, 16) of `number` of the joined channels, from `first` on, as the
   gradient of a weight (gate, n, channel, y, x). `own` is the reach of its kernel. */
static inline void write_weight(const Layer *l, const float *sums, int64_t first, int64_t number, int64_t own,
                                float *d_weight) {
    const int64_t taps = 2 * own + 1, side = 2 * l->all.reach + 1, edge = l->all.reach - own;
#pragma omp for schedule(static) nowait
    for (int64_t c = 0; c < 4 * l->n; c++)
        for (int64_t j = 0; j < number; j++) {
            const int64_t gate = grouped(c, l->n), channel = first + j;
            const float *from = sums + (gate / 32 * (l->channels / 32) + channel / 32) * 1024 + channel % 32 / 16 * 512
                                + gate % 32 * 16 + channel % 16;
            for (int64_t y = 0; y < taps; y++)
                for (int64_t x = 0; x < taps; x++)
                    d_weight[((c * number + j) * taps + y) * taps + x]
                        = from[((edge + y) * side + edge + x) * l->gates * l->channels];
        }
}

/* Computes the gradients of weights and bias.

   d_gates: (time, group, place, gate, 16), gradients of the gates' arguments
   frames: (time, place, input), or NULL; hidden: (time, place, n); hidden0: (place, n), or NULL for zeros
   d_input: (gate, n, input, y, x), or NULL; d_state: (gate, n, n, y, x); d_bias: (gate, n), written
   Memory to work in; channels are the joined ones, rounded up to 32, and gates are in groups:
   sums: (tap, gate / 32, channel / 32, 2, 32, 16); taps are those of the wider kernel. If there are no places, these and d_bias
   must be zero
   rows: (gate, width), for `at_once` places; width is at least that
   columns: (2, channel / 16, pair, 16, 2), for `at_once` places and, on both sides, the margin rounded up to PLACES
   totals: (at_once / PLACES, gate); staged: (thread, PLACES + 1, channels + gates), all zero */
void layer_weights(const Shape *s, const bfloat *d_gates, const bfloat *frames, const bfloat *hidden, const bfloat *hidden0,
                   float *d_input, float *d_state, float *d_bias, float *sums, bfloat *rows, bfloat *columns, float *totals,
                   bfloat *staged, int64_t at_once, int64_t width, int threads) {
    const Layer l = {d_gates, frames, hidden, hidden0, s->inputs, s->n, first_state(s), places_of(s),
                     rounded_up(first_state(s) + s->n, 32), groups_of(s->n) * GROUP,
                     {s->times * s->cases, s->y, s->x, widest(s)}};
    const int64_t length = padded_length(&l.all), edge = rounded_up(margin(&l.all), PLACES), reach = l.all.reach;
    const int64_t gate_blocks = l.gates / 32, channel_blocks = l.channels / 32, side = 2 * reach + 1;
    const int64_t input_blocks = s->input_reach == s->state_reach ? 0 : l.first_state / 32;
    const int64_t all_pairs = at_once / 2 + edge, each = l.channels / 16 * all_pairs * 32;
#pragma omp parallel num_threads(threads)
    {
        TileShapes shapes;
        begin_products(&shapes);
        bfloat *stage = staged + omp_get_thread_num() * (PLACES + 1) * (l.channels + l.gates);
        bfloat *gates = stage + (PLACES + 1) * l.channels;
        float nowhere[256] __attribute__((aligned(64)));
        for (int64_t first = 0; first < length; first += at_once) {
            const int64_t count = smaller(at_once, rounded_up(length - first, PLACES));
#pragma omp for schedule(static)
            for (int64_t at = -edge; at < count + edge; at += PLACES) {
                stage_joined(&l, first + at, PLACES + 1, stage);
                pair_places(stage, l.channels, columns + 16 * (edge + at), all_pairs);
                pair_places(stage + l.channels, l.channels, columns + each + 16 * (edge + at), all_pairs);
                if (at < 0 || at >= count) continue;
                stage_gates(&l, first + at, gates);
                transpose_places(gates, l.gates, rows + at, width);
                add_places(gates, l.gates, totals + at / PLACES * l.gates);
            }
            add_totals(&l, totals, count / PLACES, !first, d_bias);
#pragma omp for schedule(static) collapse(2)
            for (int64_t gate = 0; gate < gate_blocks; gate++)
                for (int64_t channel = 0; channel < channel_blocks; channel++) {
                    const int64_t own = channel < input_blocks ? s->input_reach : s->state_reach;
                    for (int64_t at = 0; at < count; at += PLACES_IN_CACHE)
                        for (int64_t dy = -own; dy <= own; dy++)
                            for (int64_t dx = -own; dx <= own; dx++) {
                                const int64_t tap = (dy + reach) * side + dx + reach;
                                const int64_t from = edge + at + dy * row_length(&l.all) + dx;
                                add_products(rows + gate * 32 * width + at, width,
                                             columns + from % 2 * each + channel * 64 * all_pairs + from / 2 * 32, all_pairs,
                                             smaller(PLACES_IN_CACHE, count - at), !first && !at,
                                             sums + ((tap * gate_blocks + gate) * channel_blocks + channel) * 1024,
                                             nowhere);
                            }
                }
        }
        end_products(&shapes);
        if (d_input) write_weight(&l, sums, 0, l.inputs, s->input_reach, d_input);
        write_weight(&l, sums, l.first_state, l.n, s->state_reach, d_state);
    }
}
