/* Between the cells of guidance and the patches of the network, in one pass over memory each: the equations of `_fed`,
   `_unfolded` and `_corrected` (network.py) in C.

   Cells are (case, lead, rate, y, x), patches (lead, case, rows, columns, channel), with `patch` × `patch` cells of each rate in
   the channels of a patch. Beyond the grid's last row and column, patches are filled up with missing cells. Corrections and
   their gradient are of type `value`. */

#include <math.h>

#include "../engine/value.h"

/* Visits each row of cells within each row of patches: `top` is its number in the field of a rate, `channel` that of its first
   cell in each patch. */
#define EACH_ROW(rates)                                                                                                        \
    for (int64_t row = 0; row < rows; row++)                                                                                   \
        for (int64_t r = 0; r < (rates); r++)                                                                                  \
            for (int64_t i = 0, top = row * patch, channel = r * patch * patch; i < patch; i++, top++, channel += patch)

/* Runs a statement for each column of patches, with the cell where it begins as `left` and the number of its cells within the
   grid as `n`: a constant where the compiler is to vectorise. */
#define EACH_COLUMN(...)                                                                                                       \
    {                                                                                                                          \
        const int64_t whole = top < y ? x / patch : 0;                                                                         \
        int64_t column = 0, left = 0;                                                                                          \
        if (patch == 4) {                                                                                                      \
            const int64_t n = 4;                                                                                               \
            for (; column < whole; column++, left += n) __VA_ARGS__                                                            \
        }                                                                                                                      \
        for (; column < columns; column++, left += patch) {                                                                    \
            const int64_t n = top >= y ? 0 : x - left < patch ? x - left : patch;                                              \
            __VA_ARGS__                                                                                                        \
        }                                                                                                                      \
    }

/* Computes odds = intercept + slope * guidance + trust * correction, NaN where guidance is missing.

   coded: guidance in cells; corrections: in patches; intercept, slope: (lead, rate); odds: written, in cells */
void corrected(const int8_t *coded, const value *corrections, const float *intercept, const float *slope, int64_t cases,
               int64_t leads, int64_t rates, int64_t y, int64_t x, int64_t patch, int missing, float trust, float *odds,
               int threads) {
    const int64_t rows = (y + patch - 1) / patch, columns = (x + patch - 1) / patch, channels = rates * patch * patch;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t f = 0; f < cases * leads; f++) {
        const int64_t lead = f % leads, first = f * rates * y * x;
        const value *of_field = corrections + (lead * cases + f / leads) * rows * columns * channels;
        EACH_ROW(rates) {
            const float a = intercept[lead * rates + r], b = slope[lead * rates + r];
            const int8_t *code = coded + first + (r * y + top) * x, *lowest = coded + first + top * x;
            const value *from = of_field + row * columns * channels + channel;
            float *restrict out = odds + first + (r * y + top) * x;
            EACH_COLUMN({
                for (int64_t j = 0; j < n; j++) {
                    const float found = a + b * code[left + j] + trust * get(from[column * channels + j]);
                    out[left + j] = lowest[left + j] == missing ? NAN : found;
                }
            })
        }
    }
}

/* Writes values in cells, times `factor`, to patches; 0 beyond the grid. */
void folded(const float *values, int64_t cases, int64_t leads, int64_t rates, int64_t y, int64_t x, int64_t patch,
            float factor, value *patches, int threads) {
    const int64_t rows = (y + patch - 1) / patch, columns = (x + patch - 1) / patch, channels = rates * patch * patch;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t f = 0; f < cases * leads; f++) {
        value *of_field = patches + (f % leads * cases + f / leads) * rows * columns * channels;
        EACH_ROW(rates) {
            const float *from = values + ((f * rates + r) * y + top) * x;
            value *restrict out = of_field + row * columns * channels + channel;
            EACH_COLUMN({
                for (int64_t j = 0; j < n; j++) out[column * channels + j] = put(factor * from[left + j]);
                for (int64_t j = n; j < patch; j++) out[column * channels + j] = put(0);
            })
        }
    }
}

/* Computes the forecaster's input: a + b * guidance of the `chosen` first of every `stride`-th rate, `absent` where it is
   missing, and as the last channel the share of known cells.

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
        EACH_ROW(chosen) {
            const float intercept = a[lead * chosen + r], slope = b[lead * chosen + r];
            const int8_t *code = coded + first + (stride * r * y + top) * x, *lowest = coded + first + top * x;
            float *restrict out = of_field + row * columns * channels;
            EACH_COLUMN({
                int known = 0;
                for (int64_t j = 0; j < n; j++) {
                    const float found = intercept + slope * code[left + j];
                    const int here = lowest[left + j] != missing;
                    out[column * channels + channel + j] = here ? found : absent;
                    known += here;
                }
                for (int64_t j = n; j < patch; j++) out[column * channels + channel + j] = absent;
                if (!r) out[column * channels + last] += known;
            })
        }
        for (int64_t n = 0; n < rows * columns; n++) of_field[n * channels + last] /= patch * patch;
    }
}
