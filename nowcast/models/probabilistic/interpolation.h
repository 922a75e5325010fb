/* Bilinear interpolation from coarse cells to finer ones, `factor` (even) along each side, as torch computes it with
   align_corners=False. Planes are (y, x), rows and planes follow one another in memory.

   The centre of fine cell j lies at (j + 1/2) / factor - 1/2 of the coarse ones: between the coarse centres c and c + 1 lie
   `factor` fine cells, which begin at j = c factor + factor / 2. Beyond the outermost centres the value is that of the edge. */

#pragma once

#include <stdint.h>

#define INLINED static inline __attribute__((always_inline))

/* Returns the coarse row below fine row `i`, and the row's share of the distance to the next one. */
INLINED int64_t below(int64_t i, int64_t rows, int64_t factor, float *share) {
    int64_t from_centre = i - factor / 2;
    if (from_centre < 0) return *share = 0, 0;
    int64_t row = from_centre / factor;
    if (row >= rows - 1) return *share = 0, rows - 1;
    *share = ((float)(from_centre % factor) + 0.5f) / (float)factor;
    return row;
}

/* Interpolates `count` fine cells between the centres of two coarse ones. */
INLINED void between(float a, float b, int64_t factor, int64_t count, float *fine) {
    for (int64_t k = 0; k < count; k++) {
        float share = ((float)k + 0.5f) / (float)factor;
        fine[k] = (1.0f - share) * a + share * b;
    }
}

/* Interpolates one row of `columns` coarse cells to its first `n` fine cells. */
INLINED void expand(const float *coarse, int64_t columns, int64_t factor, int64_t n, float *fine) {
    const int64_t half = factor / 2, left = n < half ? n : half;
    for (int64_t j = 0; j < left; j++) fine[j] = coarse[0];
    int64_t c = 0; /* whole intervals: their number of cells is a constant where the factor is one */
    for (; c < columns - 1 && half + (c + 1) * factor <= n; c++)
        between(coarse[c], coarse[c + 1], factor, factor, fine + half + c * factor);
    const int64_t first = half + c * factor, count = n - first; /* the last one, which may be cut */
    if (count > 0) between(coarse[c], coarse[c < columns - 1 ? c + 1 : c], factor, count, fine + first);
}

/* Interpolates fine row `i` of a plane. */
INLINED void row_of(const float *plane, int64_t rows, int64_t columns, int64_t factor, int64_t i, int64_t n, float *fine) {
    float share, mixed[columns];
    int64_t row = below(i, rows, factor, &share);
    const float *a = plane + row * columns, *b = row < rows - 1 ? a + columns : a;
    for (int64_t c = 0; c < columns; c++) mixed[c] = (1.0f - share) * a[c] + share * b[c];
    switch (factor) { /* a constant makes the compiler unroll */
    case 2: expand(mixed, columns, 2, n, fine); break;
    case 4: expand(mixed, columns, 4, n, fine); break;
    case 8: expand(mixed, columns, 8, n, fine); break;
    default: expand(mixed, columns, factor, n, fine);
    }
}
