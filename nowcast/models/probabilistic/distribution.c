/* The value that is forecast of a distribution, in one pass over memory: highest_reached of models/odds.py in C.

   `outputs` are planes of float `plane` apart, their rows `row` apart: shifts of all levels, then slopes. For each anchor
   come the level below it, its share of the way to the next level, its value and its cut. */

#include <stdint.h>

#define STRIP 128 /* cells whose values stay in the cache meanwhile */
#define INLINED static inline __attribute__((always_inline))

/* As torch.lerp does, which is exact at both ends. */
INLINED float between(float a, float b, float share) { return share < 0.5f ? a + share * (b - a) : b - (b - a) * (1.0f - share); }

INLINED void strip(const float *outputs, int64_t plane, int levels, const int32_t *lower, const float *share,
                   const float *anchors, const float *cuts, int num_anchors, float most, float *values, int64_t n) {
    float margins[STRIP];
    for (int k = 0; k < num_anchors; k++) {
        const float *shift = outputs + lower[k] * plane, *slope = shift + levels * plane;
        const float anchor = anchors[k], cut = cuts[k], part = share[k];
        const float step = k ? anchor - anchors[k - 1] : 0, steps = k == num_anchors - 1 ? most : 1;
        int reached = 0;
#pragma omp simd reduction(| : reached)
        for (int64_t c = 0; c < n; c++) {
            float odds = between(shift[c], shift[plane + c], part) - anchor * between(slope[c], slope[plane + c], part);
            float above = odds - cut;
            if (k) {
                float margin = margins[c];
                above = margin < above ? margin : above; /* NaN stays NaN, here and below */
                float apart = margin - above;
                float ratio = margin / (apart < 1e-6f ? 1e-6f : apart);
                values[c] += margin >= 0 ? step * (ratio > steps ? steps : ratio) : 0;
            } else {
                values[c] = above >= 0 ? anchor : 0;
            }
            margins[c] = above;
            reached |= above >= 0;
        }
        if (!reached) return; /* nor is any higher anchor */
    }
}

void highest_reached(const float *outputs, int64_t plane, int64_t row, int64_t y, int64_t x, int levels, const int32_t *lower,
                     const float *share, const float *anchors, const float *cuts, int num_anchors, float most, float *values,
                     int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < y; i++)
        for (int64_t j = 0; j < x; j += STRIP)
            strip(outputs + i * row + j, plane, levels, lower, share, anchors, cuts, num_anchors, most, values + i * x + j,
                  x - j < STRIP ? x - j : STRIP);
}
