/* The gates and states of 16 channels at one grid cell, forward and backward: the equations of gates.c (of the folder
   above) for AVX-512.

   Macros RELU and HARD_SIGMOID choose the activations. Values differ from those of gates.c by up to 1e-4, a twentieth of what
   bfloat16 resolves. While the matrix units work, a core executes one vector instruction in each cycle, so the number of
   instructions here decides how long narrow layers take. Hence bias and factor of an argument are one multiplication with
   addition, 2^x is a polynomial of few terms, and 1/x is the processor's estimate. */

/* Returns 2^x, with a relative error of up to 1.1e-04 besides that of x: a polynomial of the fractional part of x.
   It is exact for whole numbers, so that tanh(0) is 0, and right for infinity and NaN. */
static inline __m512 power_of_two(__m512 x) {
    const __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.07826797f), r, _mm512_set1_ps(0.22630768f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.69542435f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

/* Returns 1/x, with a relative error of up to 2^-14; exact for powers of 2. */
static inline __m512 inverse(__m512 x) { return _mm512_rcp14_ps(x); }

#define LOG2_E 1.44269504f
#define ONE _mm512_set1_ps(1.0f)
#define ZERO _mm512_setzero_ps()

/* Activation functions are called with SCALE x + SHIFT for an argument x. */
#ifdef HARD_SIGMOID
#define SQUASH_SCALE 0.2f
#define SQUASH_SHIFT 0.5f
static inline __m512 squash16(__m512 x) { return _mm512_min_ps(ONE, _mm512_max_ps(ZERO, x)); }
static inline __m512 squash_slope16(__m512 y) {
    __mmask16 inside = _mm512_cmp_ps_mask(y, ZERO, _CMP_GT_OQ) & _mm512_cmp_ps_mask(y, ONE, _CMP_LT_OQ);
    return _mm512_maskz_mov_ps(inside, _mm512_set1_ps(0.2f));
}
#else
#define SQUASH_SCALE -LOG2_E
#define SQUASH_SHIFT 0.0f
static inline __m512 squash16(__m512 x) { return inverse(_mm512_add_ps(ONE, power_of_two(x))); }
static inline __m512 squash_slope16(__m512 y) { return _mm512_fnmadd_ps(y, y, y); }
#endif

#ifdef RELU
#define ACTIVATION_SCALE 1.0f
static inline __m512 activate16(__m512 x) { return _mm512_max_ps(ZERO, x); }
static inline __m512 activation_slope16(__m512 y) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, ZERO, _CMP_GT_OQ), ONE); }
#else
#define ACTIVATION_SCALE (2 * LOG2_E)
static inline __m512 activate16(__m512 x) {
    return _mm512_fnmadd_ps(_mm512_set1_ps(2.0f), inverse(_mm512_add_ps(ONE, power_of_two(x))), ONE);
}
static inline __m512 activation_slope16(__m512 y) { return _mm512_fnmadd_ps(y, y, ONE); }
#endif

/* The activation of a cell state. */
static inline __m512 activated(__m512 cell) { return activate16(_mm512_mul_ps(cell, _mm512_set1_ps(ACTIVATION_SCALE))); }

/* Scales biases (gate, n) as the gates' arguments are scaled, to (channel / 16, gate, 16), with zero biases for channels that
   fill up the last 16. */
static void scale_bias(const float *bias, int64_t n, float *scaled) {
    for (int64_t j = 0; j < groups_of(n) * GROUP; j++) {
        const int64_t channel = j / GROUP * 16 + j % 16, gate = j % GROUP / 16;
        const float b = channel < n ? bias[gate * n + channel] : 0;
        scaled[j] = gate == 2 ? ACTIVATION_SCALE * b : SQUASH_SCALE * b + SQUASH_SHIFT;
    }
}

/* Scales the argument of a gate and adds its scaled bias. */
static inline __m512 scaled(__m512 sums, float scale, const float *bias) {
    return _mm512_fmadd_ps(sums, _mm512_set1_ps(scale), _mm512_loadu_ps(bias));
}

/* Computes gate values `g` and new states of channels c to c + 16 (those of the mask `m`) at the next place of `rest`, from its
   sums, one vector for each gate. The other arguments are those of place_forward (gates.c of the folder above).

   bias: (gate, 16), scaled
   before: the cell state of the time before, or NULL for zeros
   g: (gate, 16), written, or NULL
   hidden_too: a second place to write the hidden state to, or NULL */
INLINED void forward_lanes(__mmask16 m, int64_t c, const Rest *rest, const float *bias, const float *peepholes,
                           const float *before, bfloat *g, float *cell, bfloat *hidden, bfloat *hidden_too, int64_t n) {
    __m512 old = before ? _mm512_maskz_loadu_ps(m, before + c) : ZERO;
    __m512 i = sums_of(rest, 0), f = sums_of(rest, 1), a = sums_of(rest, 2), o = sums_of(rest, 3);
    if (peepholes) {
        i = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, peepholes + c), old, i);
        f = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, peepholes + n + c), old, f);
    }
    i = squash16(scaled(i, SQUASH_SCALE, bias)), f = squash16(scaled(f, SQUASH_SCALE, bias + 16));
    a = activate16(scaled(a, ACTIVATION_SCALE, bias + 32));
    __m512 now = _mm512_fmadd_ps(f, old, _mm512_mul_ps(i, a));
    if (peepholes) o = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, peepholes + 2 * n + c), now, o);
    o = squash16(scaled(o, SQUASH_SCALE, bias + 48));
    __m512 h = _mm512_mul_ps(o, activated(now));
    if (g) store_two(g, i, f), store_two(g + 32, a, o);
    _mm512_mask_storeu_ps(cell + c, m, now);
    store_bfloat(hidden + c, m, h);
    if (hidden_too) store_bfloat(hidden_too + c, m, h);
}

/* Computes the gradients of channels c to c + 16 (those of the mask `m`) as place_backward (gates.c) does.

   g, g_too: (gate, 16), gate values, overwritten by the gradients of their arguments; a second place to write these to
   d_out, d_next: gradients of the hidden state, from the output and from the next time, which are added
   d_after: gradient of the cell state from the next time, or NULL for zeros
   before: the cell state of the time before, or NULL for zeros */
INLINED void backward_lanes(__mmask16 m, int64_t c, bfloat *g, bfloat *g_too, const float *before, const float *cell,
                            const float *peepholes, const bfloat *d_out, __m512 d_next, const float *d_after, float *d_cell,
                            int64_t n) {
    __m512 i = load_bfloat(0xffff, g), f = load_bfloat(0xffff, g + 16);
    __m512 a = load_bfloat(0xffff, g + 32), o = load_bfloat(0xffff, g + 48);
    __m512 old = before ? _mm512_maskz_loadu_ps(m, before + c) : ZERO;
    __m512 d_hidden = _mm512_add_ps(load_bfloat(m, d_out + c), d_next);
    __m512 shown = activated(_mm512_maskz_loadu_ps(m, cell + c));
    __m512 d_o = _mm512_mul_ps(_mm512_mul_ps(d_hidden, shown), squash_slope16(o));
    __m512 d = d_after ? _mm512_maskz_loadu_ps(m, d_after + c) : ZERO;
    d = _mm512_fmadd_ps(_mm512_mul_ps(d_hidden, o), activation_slope16(shown), d);
    if (peepholes) d = _mm512_fmadd_ps(d_o, _mm512_maskz_loadu_ps(m, peepholes + 2 * n + c), d);
    __m512 d_i = _mm512_mul_ps(_mm512_mul_ps(d, a), squash_slope16(i));
    __m512 d_f = _mm512_mul_ps(_mm512_mul_ps(d, old), squash_slope16(f));
    __m512 d_a = _mm512_mul_ps(_mm512_mul_ps(d, i), activation_slope16(a));
    __m512 d_before = _mm512_mul_ps(d, f);
    if (peepholes) {
        d_before = _mm512_fmadd_ps(d_i, _mm512_maskz_loadu_ps(m, peepholes + c), d_before);
        d_before = _mm512_fmadd_ps(d_f, _mm512_maskz_loadu_ps(m, peepholes + n + c), d_before);
    }
    store_two(g, d_i, d_f), store_two(g + 32, d_a, d_o);
    store_two(g_too, d_i, d_f), store_two(g_too + 32, d_a, d_o);
    _mm512_mask_storeu_ps(d_cell + c, m, d_before);
}
