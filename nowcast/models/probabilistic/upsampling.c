/* Bilinear interpolation of fields from coarse cells to finer ones, and its transpose (interpolation.h). */

#include <string.h>

#include "interpolation.h"

/* Interpolates planes (rows, columns), and adds `added` (of the shape of `fine`) unless it is NULL. */
void upsampled(const float *coarse, int64_t planes, int64_t rows, int64_t columns, int64_t factor, const float *added,
               float *fine, int threads) {
    const int64_t y = rows * factor, x = columns * factor;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < planes * y; line++) {
        float *to = fine + line * x;
        row_of(coarse + line / y * rows * columns, rows, columns, factor, line % y, x, to);
        if (added)
            for (int64_t j = 0; j < x; j++) to[j] += added[line * x + j];
    }
}

/* Computes slope · location + shift at each level, and then the slopes, from the shifts and slopes of coarse cells.

   coarse: (field, 2 × levels, rows, columns); location: (field, rows × factor, columns × factor)
   outputs: (field, 2 × levels, y, x), the first cells of that grid */
void spread(const float *coarse, const float *location, int64_t fields, int64_t levels, int64_t rows, int64_t columns,
            int64_t factor, int64_t y, int64_t x, float *outputs, int threads) {
    const int64_t plane = rows * columns, width = columns * factor;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < fields * y; line++) {
        const int64_t field = line / y, i = line % y;
        const float *of_row = location + (field * rows * factor + i) * width;
        for (int64_t level = 0; level < levels; level++) {
            const float *shift = coarse + (2 * field * levels + level) * plane;
            float *scaled = outputs + ((2 * field * levels + level) * y + i) * x, *slope = scaled + levels * y * x;
            row_of(shift, rows, columns, factor, i, x, scaled);
            row_of(shift + levels * plane, rows, columns, factor, i, x, slope);
            for (int64_t j = 0; j < x; j++) scaled[j] += slope[j] * of_row[j];
        }
    }
}

/* Adds a fine row, times `weight`, to the sums of its columns. */
INLINED void collect(const float *fine, int64_t n, float weight, float *sums) {
    for (int64_t j = 0; j < n; j++) sums[j] += weight * fine[j];
}

/* Adds up `count` fine cells between the centres of two coarse ones to these: the transpose of `between`. */
INLINED void gather(const float *fine, int64_t factor, int64_t count, float *a, float *b) {
    float left = 0, right = 0;
    for (int64_t k = 0; k < count; k++) {
        float share = ((float)k + 0.5f) / (float)factor;
        left += (1.0f - share) * fine[k];
        right += share * fine[k];
    }
    *a += left;
    *b += right;
}

/* Adds up one row of `n` fine cells to the coarse cells that they were interpolated from: the transpose of `expand`. */
INLINED void contract(const float *fine, int64_t columns, int64_t factor, int64_t n, float *coarse) {
    const int64_t half = factor / 2, left = n < half ? n : half;
    for (int64_t j = 0; j < left; j++) coarse[0] += fine[j];
    for (int64_t c = 0; half + c * factor < n; c++) {
        const int64_t first = half + c * factor, rest = n - first;
        gather(fine + first, factor, rest < factor ? rest : factor, coarse + c, coarse + (c < columns - 1 ? c + 1 : c));
    }
}

/* Computes the gradient of the coarse cells from that of the outputs of `spread`. */
void collected(const float *gradient, const float *location, int64_t fields, int64_t levels, int64_t rows, int64_t columns,
               int64_t factor, int64_t y, int64_t x, float *coarse, int threads) {
    const int64_t plane = rows * columns, width = columns * factor;
    memset(coarse, 0, fields * 2 * levels * plane * sizeof(float));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t each = 0; each < fields * levels * rows; each++) {
        const int64_t field = each / (levels * rows), level = each / rows % levels, row = each % rows;
        const float *of_field = location + field * rows * factor * width;
        const float *scaled = gradient + (2 * field * levels + level) * y * x, *slope = scaled + levels * y * x;
        float sums[2 * x], product[x];
        memset(sums, 0, sizeof(sums));
        const int64_t first = (row - 1) * factor + factor / 2, last = first + 2 * factor;
        for (int64_t i = row ? first : 0; i < (row < rows - 1 ? last : rows * factor) && i < y; i++) {
            float share;
            const float weight = below(i, rows, factor, &share) == row ? 1.0f - share : share;
            for (int64_t j = 0; j < x; j++) product[j] = slope[i * x + j] + scaled[i * x + j] * of_field[i * width + j];
            collect(scaled + i * x, x, weight, sums);
            collect(product, x, weight, sums + x);
        }
        float *to = coarse + ((2 * field * levels + level) * rows + row) * columns;
        contract(sums, columns, factor, x, to);
        contract(sums + x, columns, factor, x, to + levels * plane);
    }
}
