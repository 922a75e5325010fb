/* Computes the value to forecast from a distribution at each grid cell, in one pass over memory: the equations of
   highest_reached in distribution.py.

   The distribution gives the log-odds that a value is reached. Anchors are values in ascending order, each with a log-odds cut.
   The forecast is the highest value whose log-odds are above the cut, interpolated between anchors, or 0 if those of the first
   anchor are not. The network's `outputs` are planes (y, x), `plane` numbers apart, with rows `row` numbers apart:
   the shifts of all levels, then the slopes of all levels. `lower` is the level below each anchor, and `share` the anchor's
   fraction of the distance to the next level. */

#include <stdint.h>

#define STRIP 128 /* cells computed together, so that their values stay in the CPU's cache */
#define INLINED static inline __attribute__((always_inline))

/* Interpolates linearly as torch.lerp does, exact at both ends. */
INLINED float between(float a, float b, float share) { return share < 0.5f ? a + share * (b - a) : b - (b - a) * (1.0f - share); }

/* Computes `n` cells of a row, at most STRIP. `most`: how far a value may lie above the last anchor but one, in units of its
   distance to the last anchor. */
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
                above = margin < above ? margin : above; /* written so that NaN stays NaN, here and below */
                float apart = margin - above;
                float ratio = margin / (apart < 1e-6f ? 1e-6f : apart);
                values[c] += margin >= 0 ? step * (ratio > steps ? steps : ratio) : 0;
            } else {
                values[c] = above >= 0 ? anchor : 0;
            }
            margins[c] = above;
            reached |= above >= 0;
        }
        if (!reached) return; /* then no cell reaches a higher anchor */
    }
}

/* Computes `values` (y, x) of all cells. */
void highest_reached(const float *outputs, int64_t plane, int64_t row, int64_t y, int64_t x, int levels, const int32_t *lower,
                     const float *share, const float *anchors, const float *cuts, int num_anchors, float most, float *values,
                     int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < y; i++)
        for (int64_t j = 0; j < x; j += STRIP)
            strip(outputs + i * row + j, plane, levels, lower, share, anchors, cuts, num_anchors, most, values + i * x + j,
                  x - j < STRIP ? x - j : STRIP);
}
