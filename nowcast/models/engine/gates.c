/* The gates and states of a ConvLSTM at one time, forward and backward, in one pass over memory: the equations of
   GateArithmetic (gates.py) in C.

   The channels are innermost in memory: for each grid cell come the channels of the gates i, f, c, o. Gates, hidden states and
   their gradients are of type `value`, cell states and their gradients are float. The file is compiled once for each choice of
   the macros BFLOAT16, RELU and HARD_SIGMOID, so that the inner loops have no branches and can be vectorised. */

#include "exponential.h"
#include "value.h"

#ifdef HARD_SIGMOID
static inline float squash(float x) {
    float y = 0.2f * x + 0.5f;
    return y > 1.0f ? 1.0f : (y < 0.0f ? 0.0f : y);
}
static inline float squash_slope(float y) { return y > 0.0f && y < 1.0f ? 0.2f : 0.0f; }
#else
static inline float squash(float x) { return 1.0f / (1.0f + exponential(-x)); }
static inline float squash_slope(float y) { return y * (1.0f - y); }
#endif

#ifdef RELU
static inline float activation(float x) { return x < 0.0f ? 0.0f : x; }
static inline float activation_slope(float y) { return y > 0.0f ? 1.0f : 0.0f; }
#else
static inline float activation(float x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }
static inline float activation_slope(float y) { return 1.0f - y * y; }
#endif

/* Whether an optional pointer is NULL is tested outside the inner loops, which are inlined with a constant NULL. A test inside
   a loop would be compiled to masked loads, which are very slow from address 0. */
#define INLINED static inline __attribute__((always_inline))

/* Computes for one grid cell the gate values `g` and the new states `cell` and `hidden`, of n channels each. `x` and `s` are the
   convolutions of input and state, `before` is the cell state before. `x` may be NULL or `g` itself; `peepholes` (of i, f, o)
   may be NULL. */
INLINED void place_forward(const value *x, const value *s, const float *bias, const float *peepholes, const float *before,
                          value *g, float *cell, value *hidden, int64_t n) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        float i = get(s[c]) + bias[c], f = get(s[n + c]) + bias[n + c];
        float a = get(s[2 * n + c]) + bias[2 * n + c], o = get(s[3 * n + c]) + bias[3 * n + c];
        if (x) i += get(x[c]), f += get(x[n + c]), a += get(x[2 * n + c]), o += get(x[3 * n + c]);
        if (peepholes) i += peepholes[c] * before[c], f += peepholes[n + c] * before[c];
        i = squash(i), f = squash(f), a = activation(a);
        float state = f * before[c] + i * a;
        if (peepholes) o += peepholes[2 * n + c] * state;
        o = squash(o);
        g[c] = put(i), g[n + c] = put(f), g[2 * n + c] = put(a), g[3 * n + c] = put(o);
        cell[c] = state;
        hidden[c] = put(o * activation(state));
    }
}

/* Computes for one grid cell the gradients, in place. `g` holds the gate values, and then the gradients of their arguments.
   `d_cell` holds the gradient of the new cell state, and then that of the cell state before. The gradient of the hidden state
   is `d_out`, from the outputs, plus `d_next`, from the next time, which may be NULL. */
INLINED void place_backward(value *g, const float *before, const float *cell, const float *peepholes, const value *d_out,
                           const value *d_next, float *d_cell, int64_t n) {
#pragma omp simd
    for (int64_t c = 0; c < n; c++) {
        float i = get(g[c]), f = get(g[n + c]), a = get(g[2 * n + c]), o = get(g[3 * n + c]);
        float d_hidden = get(d_out[c]);
        if (d_next) d_hidden += get(d_next[c]);
        float activated = activation(cell[c]);
        float d_o = d_hidden * activated * squash_slope(o);
        float d = d_cell[c] + d_hidden * o * activation_slope(activated);
        if (peepholes) d += d_o * peepholes[2 * n + c];
        float d_i = d * a * squash_slope(i), d_f = d * before[c] * squash_slope(f);
        float d_before = d * f;
        if (peepholes) d_before += d_i * peepholes[c] + d_f * peepholes[n + c];
        g[c] = put(d_i), g[n + c] = put(d_f);
        g[2 * n + c] = put(d * i * activation_slope(a)), g[3 * n + c] = put(d_o);
        d_cell[c] = d_before;
    }
}

/* Computes gate values and new states of all grid cells, `places` in number, with n channels. `from_input` and `peepholes` may
   be NULL; `from_input` or `from_state` may be `gates` itself. */
void gates_forward(const value *from_input, const value *from_state, const float *bias, const float *peepholes,
                   const float *before, value *gates, float *cell, value *hidden, int64_t places, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < places; p++) {
        const value *x = from_input + 4 * n * p, *s = from_state + 4 * n * p;
        const float *b = before + n * p;
        value *g = gates + 4 * n * p, *h = hidden + n * p;
        float *c = cell + n * p;
        if (from_input && peepholes)
            place_forward(x, s, bias, peepholes, b, g, c, h, n);
        else if (from_input)
            place_forward(x, s, bias, 0, b, g, c, h, n);
        else if (peepholes)
            place_forward(0, s, bias, peepholes, b, g, c, h, n);
        else
            place_forward(0, s, bias, 0, b, g, c, h, n);
    }
}

/* Computes the gradients of all grid cells in place, as in place_backward. `peepholes` and `d_hidden_next` may be NULL. */
void gates_backward(value *gates, const float *before, const float *cell, const float *peepholes, const value *d_hidden,
                    const value *d_hidden_next, float *d_cell, int64_t places, int64_t n, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t p = 0; p < places; p++) {
        const value *d_out = d_hidden + n * p, *d_next = d_hidden_next + n * p;
        const float *b = before + n * p, *c = cell + n * p;
        value *g = gates + 4 * n * p;
        float *d = d_cell + n * p;
        if (peepholes && d_hidden_next)
            place_backward(g, b, c, peepholes, d_out, d_next, d, n);
        else if (peepholes)
            place_backward(g, b, c, peepholes, d_out, 0, d, n);
        else if (d_hidden_next)
            place_backward(g, b, c, 0, d_out, d_next, d, n);
        else
            place_backward(g, b, c, 0, d_out, 0, d, n);
    }
}
