/* The gates and states of 16 channels at one grid cell, forward and backward: the equations of gates.c (of the folder
   above) for AVX-512.

   Macros RELU and HARD_SIGMOID choose the activations. Values differ from those of gates.c by some 1e-5, a hundredth of what
   bfloat16 resolves: e^x is computed in fewer steps, and 1/x is refined from an estimate. */

/* Returns 2^x, with a relative error of up to 3e-06 besides that of x: a polynomial of what x is above a whole number.
   It is exact for whole numbers, so that tanh(0) is 0. */
static inline __m512 power_of_two(__m512 x) {
    x = _mm512_min_ps(_mm512_set1_ps(126.0f), x); /* NaN, as the second, stays */
    __m512 r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 p = _mm512_fmadd_ps(_mm512_set1_ps(0.0134266891f), r, _mm512_set1_ps(0.0522424664f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.241280209f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.693044844f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, x);
}

#define LOG2_E 1.44269504f

static inline __m512 inverse(__m512 x) {
    __m512 y = _mm512_rcp14_ps(x);
    return _mm512_mul_ps(y, _mm512_fnmadd_ps(x, y, _mm512_set1_ps(2.0f)));
}

#define ONE _mm512_set1_ps(1.0f)
#define ZERO _mm512_setzero_ps()

#ifdef HARD_SIGMOID
static inline __m512 squash16(__m512 x) {
    __m512 y = _mm512_fmadd_ps(x, _mm512_set1_ps(0.2f), _mm512_set1_ps(0.5f));
    return _mm512_min_ps(ONE, _mm512_max_ps(ZERO, y));
}
static inline __m512 squash_slope16(__m512 y) {
    __mmask16 inside = _mm512_cmp_ps_mask(y, ZERO, _CMP_GT_OQ) & _mm512_cmp_ps_mask(y, ONE, _CMP_LT_OQ);
    return _mm512_maskz_mov_ps(inside, _mm512_set1_ps(0.2f));
}
#else
static inline __m512 squash16(__m512 x) {
    return inverse(_mm512_add_ps(ONE, power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(-LOG2_E)))));
}
static inline __m512 squash_slope16(__m512 y) { return _mm512_fnmadd_ps(y, y, y); }
#endif

#ifdef RELU
static inline __m512 activate16(__m512 x) { return _mm512_max_ps(ZERO, x); }
static inline __m512 activation_slope16(__m512 y) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, ZERO, _CMP_GT_OQ), ONE); }
#else
static inline __m512 activate16(__m512 x) {
    __m512 e = power_of_two(_mm512_mul_ps(x, _mm512_set1_ps(2 * LOG2_E)));
    return _mm512_fnmadd_ps(_mm512_set1_ps(2.0f), inverse(_mm512_add_ps(ONE, e)), ONE);
}
static inline __m512 activation_slope16(__m512 y) { return _mm512_fnmadd_ps(y, y, ONE); }
#endif

/* Computes gate values `g` and new states, for channels c to c + 16 (those of the mask `m`), from a convolution's sums at the
   place that is next, one vector for each gate; the other arguments are as of place_forward (gates.c of the folder above).
   `bias` and `g` are (gate, 16); `before`, for zeros, and `g` may be NULL. The hidden state is written to `hidden_too` as well,
   if it is not NULL. */
INLINED void forward_lanes(__mmask16 m, int64_t c, const Rest *rest, const float *bias, const float *peepholes,
                           const float *before, bfloat *g, float *cell, bfloat *hidden, bfloat *hidden_too, int64_t n) {
    __m512 old = before ? _mm512_maskz_loadu_ps(m, before + c) : ZERO;
    __m512 i = _mm512_add_ps(sums_of(rest, 0), _mm512_loadu_ps(bias));
    __m512 f = _mm512_add_ps(sums_of(rest, 1), _mm512_loadu_ps(bias + 16));
    __m512 a = _mm512_add_ps(sums_of(rest, 2), _mm512_loadu_ps(bias + 32));
    __m512 o = _mm512_add_ps(sums_of(rest, 3), _mm512_loadu_ps(bias + 48));
    if (peepholes) {
        i = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, peepholes + c), old, i);
        f = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, peepholes + n + c), old, f);
    }
    i = squash16(i), f = squash16(f), a = activate16(a);
    __m512 now = _mm512_fmadd_ps(f, old, _mm512_mul_ps(i, a));
    if (peepholes) o = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(m, peepholes + 2 * n + c), now, o);
    o = squash16(o);
    __m512 h = _mm512_mul_ps(o, activate16(now));
    if (g) store_two(g, i, f), store_two(g + 32, a, o);
    _mm512_mask_storeu_ps(cell + c, m, now);
    store_bfloat(hidden + c, m, h);
    if (hidden_too) store_bfloat(hidden_too + c, m, h);
}

/* Computes the gradients in place, for channels c to c + 16 (those of the mask `m`), as place_backward (gates.c) does, and
   writes those of the gates to `g_too` as well; both are (gate, 16). `d_next`, from the next time, is added to the gradient
   `d_out` of the hidden state; `before` may be NULL, for zeros. */
INLINED void backward_lanes(__mmask16 m, int64_t c, bfloat *g, bfloat *g_too, const float *before, const float *cell,
                            const float *peepholes, const bfloat *d_out, __m512 d_next, float *d_cell, int64_t n) {
    __m512 i = load_bfloat(0xffff, g), f = load_bfloat(0xffff, g + 16);
    __m512 a = load_bfloat(0xffff, g + 32), o = load_bfloat(0xffff, g + 48);
    __m512 old = before ? _mm512_maskz_loadu_ps(m, before + c) : ZERO;
    __m512 d_hidden = _mm512_add_ps(load_bfloat(m, d_out + c), d_next);
    __m512 activated = activate16(_mm512_maskz_loadu_ps(m, cell + c));
    __m512 d_o = _mm512_mul_ps(_mm512_mul_ps(d_hidden, activated), squash_slope16(o));
    __m512 d = _mm512_fmadd_ps(_mm512_mul_ps(d_hidden, o), activation_slope16(activated), _mm512_maskz_loadu_ps(m, d_cell + c));
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
