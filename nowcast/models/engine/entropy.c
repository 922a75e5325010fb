/* The cross entropies of log-odds that are linear in a network's outputs, at several thresholds, and their gradient, in one
   pass over memory: the equations of CrossEntropy (losses.py) in C. */

#include <stdint.h>
#include <string.h>

#include "exponential.h"

#define STRIP 128 /* cells computed together, so that their values stay in the CPU's cache */
#define UNLIKELY -9.0f /* log-odds below which the third term of ln(1 + e) and of e / (1 + e) is below 2e-8 of the first */
#define INLINED static inline __attribute__((always_inline))

/* ln(1 + e) for 0 <= e <= 1: 2 artanh(e / (2 + e)) as a series, with a relative error below 1e-7 also where e is tiny. */
INLINED float logarithm(float e) {
    float s = e / (2.0f + e), q = s * s;
    float p = 1.0f / 15;
    p = p * q + 1.0f / 13;
    p = p * q + 1.0f / 11;
    p = p * q + 1.0f / 9;
    p = p * q + 1.0f / 7;
    p = p * q + 1.0f / 5;
    p = p * q + 1.0f / 3;
    return 2.0f * s * (p * q + 1.0f);
}

/* Returns whether no cell reaches the threshold and log-odds are below UNLIKELY in all, as in most dry places. */
INLINED int all_unlikely(const float *z, const float *observed, float threshold, int64_t n) {
    int other = 0;
#pragma omp simd reduction(| : other)
    for (int64_t c = 0; c < n; c++) other |= (observed[c] >= threshold) | !(z[c] < UNLIKELY);
    return !other;
}

/* Computes the same as `strip` where `all_unlikely` holds: of both series the two terms that a float can tell. */
INLINED float unlikely_strip(const float *z, const uint8_t *known, float weight, float *slopes, int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++) {
        float e = known[c] ? exponential(z[c]) : 0;
        sum += e - 0.5f * e * e;
        slopes[c] = weight * (e - e * e);
    }
    return sum;
}

/* Computes the cross entropies of `n` cells with log-odds `z`, writes their slopes, times `weight`, and returns their sum. */
INLINED float strip(const float *z, const float *observed, const uint8_t *known, float threshold, float weight, float *slopes,
                    int64_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t c = 0; c < n; c++) {
        float sign = observed[c] >= threshold ? -1.0f : 1.0f, odds = sign * z[c];
        float e = exponential(odds < 0 ? odds : -odds);
        float entropy = (odds < 0 ? 0 : odds) + logarithm(e); /* written so that NaN stays NaN */
        float slope = sign * weight * (odds < 0 ? e : 1.0f) / (1.0f + e);
        sum += known[c] ? entropy : 0;
        slopes[c] = known[c] ? slope : 0;
    }
    return sum;
}

/* Computes the sums over the known cells of each field and threshold, and the gradient of their weighted total.

   outputs, gradient: (field, plane, cell); observed, known: (field, cell); sums: (field, threshold)
   coefficients: (threshold, plane), by which the log-odds are linear in the planes */
void cross_entropies(const float *outputs, const float *observed, const uint8_t *known, int64_t fields, int64_t planes,
                     int64_t cells, int64_t thresholds, const float *coefficients, const float *limits, const float *weights,
                     double *sums, float *gradient, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t f = 0; f < fields; f++)
        for (int64_t first = 0; first < cells; first += STRIP) {
            int64_t n = cells - first < STRIP ? cells - first : STRIP;
            const float *values = outputs + f * planes * cells + first;
            float *given = gradient + f * planes * cells + first;
            for (int64_t p = 0; p < planes; p++) memset(given + p * cells, 0, n * sizeof(float));
            for (int64_t k = 0; k < thresholds; k++) {
                const float *factors = coefficients + k * planes;
                float z[STRIP] = {0}, slopes[STRIP];
                for (int64_t p = 0; p < planes; p++)
                    if (factors[p] != 0)
                        for (int64_t c = 0; c < n; c++) z[c] += factors[p] * values[p * cells + c];
                const float *rain = observed + f * cells + first;
                const uint8_t *seen = known + f * cells + first;
                sums[f * thresholds + k] += all_unlikely(z, rain, limits[k], n)
                                                ? unlikely_strip(z, seen, weights[k], slopes, n)
                                                : strip(z, rain, seen, limits[k], weights[k], slopes, n);
                for (int64_t p = 0; p < planes; p++)
                    if (factors[p] != 0)
                        for (int64_t c = 0; c < n; c++) given[p * cells + c] += factors[p] * slopes[c];
            }
        }
}
