/* Between the cells of guidance and the patches of the network, in one pass over memory each: the equations of `_fed`,
   `_unfolded` and `_corrected` (network.py) in C.

   Cells are (case, lead, rate, y, x), patches (lead, case, rows, columns, channel), with `patch` × `patch` cells of each rate in
   the channels of a patch. Beyond the grid's last row and column, patches are filled up with missing cells. */

#include <math.h>
#include <stdint.h>

#define INLINED static inline __attribute__((always_inline))

/* Visits each run of up to `patch` cells of a row: `cell` is its place in the field of a rate, `channel` in the patches. */
#define EACH_RUN(rates, channels)                                                                                              \
    for (int64_t row = 0; row < rows; row++)                                                                                   \
        for (int64_t r = 0; r < (rates); r++)                                                                                  \
            for (int64_t i = 0; i < patch; i++)                                                                                \
                for (int64_t column = 0, channel = row * columns * (channels) + (r * patch + i) * patch; column < columns;      \
                     column++, channel += (channels))

/* Computes odds = intercept + slope * guidance + trust * correction, NaN where guidance is missing.

   coded: guidance in cells; corrections: in patches; intercept, slope: (lead, rate); odds: written, in cells */
void corrected(const int8_t *coded, const float *corrections, const float *intercept, const float *slope, int64_t cases,
               int64_t leads, int64_t rates, int64_t y, int64_t x, int64_t patch, int missing, float trust, float *odds,
               int threads) {
    const int64_t rows = (y + patch - 1) / patch, columns = (x + patch - 1) / patch, channels = rates * patch * patch;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t f = 0; f < cases * leads; f++) {
        const int64_t lead = f % leads, first = f * rates * y * x;
        const float *of_field = corrections + (lead * cases + f / leads) * rows * columns * channels;
        EACH_RUN(rates, channels) {
            const int64_t top = row * patch + i, left = column * patch, n = top >= y ? 0 : x - left < patch ? x - left : patch;
            const int64_t place = top * x + left;
            const float a = intercept[lead * rates + r], b = slope[lead * rates + r];
            const int8_t *code = coded + first + r * y * x + place, *lowest = coded + first + place;
            float *out = odds + first + r * y * x + place;
            for (int64_t j = 0; j < n; j++)
                out[j] = lowest[j] == missing ? NAN : a + b * code[j] + trust * of_field[channel + j];
        }
    }
}

/* Writes values in cells, times `factor`, to patches; 0 beyond the grid. */
void folded(const float *values, int64_t cases, int64_t leads, int64_t rates, int64_t y, int64_t x, int64_t patch,
            float factor, float *patches, int threads) {
    const int64_t rows = (y + patch - 1) / patch, columns = (x + patch - 1) / patch, channels = rates * patch * patch;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t f = 0; f < cases * leads; f++) {
        float *of_field = patches + (f % leads * cases + f / leads) * rows * columns * channels;
        EACH_RUN(rates, channels) {
            const int64_t top = row * patch + i, left = column * patch, n = top >= y ? 0 : x - left < patch ? x - left : patch;
            const float *from = values + (f * rates + r) * y * x + top * x + left;
            for (int64_t j = 0; j < patch; j++) of_field[channel + j] = j < n ? factor * from[j] : 0;
        }
    }
}

/* Computes the forecaster's input: a + b * guidance of the `chosen` first of every `stride`-th rate, `absent` where it is missing, and as the last
   channel the share of known cells.

   coded: guidance in cells; a, b: (lead, chosen rate); patches: written */
void fed(const int8_t *coded, const float *a, const float *b, int64_t cases, int64_t leads, int64_t rates, int64_t y,
         int64_t x, int64_t patch, int missing, int64_t chosen, int64_t stride, float absent, float *patches, int threads) {
    const int64_t rows = (y + patch - 1) / patch, columns = (x + patch - 1) / patch;
    const int64_t channels = chosen * patch * patch + 1, last = channels - 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t f = 0; f < cases * leads; f++) {
        const int64_t lead = f % leads, first = f * rates * y * x;
        float *of_field = patches + (lead * cases + f / leads) * rows * columns * channels;
        for (int64_t n = 0; n < rows * columns; n++) of_field[n * channels + last] = 0;
        EACH_RUN(chosen, channels) {
            const int64_t top = row * patch + i, left = column * patch, n = top >= y ? 0 : x - left < patch ? x - left : patch;
            const int64_t place = top * x + left;
            const int8_t *code = coded + first + stride * r * y * x + place, *lowest = coded + first + place;
            int known = 0;
            for (int64_t j = 0; j < patch; j++) {
                const int here = j < n && lowest[j] != missing;
                of_field[channel + j] = here ? a[lead * chosen + r] + b[lead * chosen + r] * code[j] : absent;
                known += here;
            }
            if (!r) of_field[(row * columns + column) * channels + last] += known;
        }
        for (int64_t n = 0; n < rows * columns; n++) of_field[n * channels + last] /= patch * patch;
    }
}
