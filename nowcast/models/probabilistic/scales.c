/* What the cascade computes from all cells, each in one pass over memory: the equations of scales.py in C.

   Planes are (y, x), rows and planes follow one another in memory. A result depends neither on its place nor on the number of
   threads. */

#include <math.h>
#include <string.h>

#include "interpolation.h"

#define LEAST_SHARE 1e-6f

/* Averages cells two by two, weighted by the share of each that is known; without the last row or column of an odd number.

   values, share: (plane, y, x)
   mean, coarser: (plane, y / 2, x / 2), the weighted mean and the mean share */
void halved(const float *values, const float *share, int64_t planes, int64_t y, int64_t x, float *restrict mean,
            float *restrict coarser, int threads) {
    const int64_t half = x / 2, rows = y / 2;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < planes * rows; line++) {
        const int64_t start = (line / rows * y + line % rows * 2) * x;
        const float *v = values + start, *w = v + x, *s = share + start, *t = s + x;
        float *m = mean + line * half, *c = coarser + line * half;
        for (int64_t j = 0; j < half; j++) {
            const float shares = 0.25f * (s[2 * j] + s[2 * j + 1] + t[2 * j] + t[2 * j + 1]);
            const float upper = v[2 * j] * s[2 * j] + v[2 * j + 1] * s[2 * j + 1];
            const float lower = w[2 * j] * t[2 * j] + w[2 * j + 1] * t[2 * j + 1];
            c[j] = shares;
            m[j] = 0.25f * (upper + lower) / (shares < LEAST_SHARE ? LEAST_SHARE : shares);
        }
    }
}

/* Splits means into a band and what is smooth, the interpolated coarser field. Where nothing is known the band is 0.

   mean, share: (plane, y, x); coarse: (plane, y / 2, x / 2)
   band, whole: (plane, y, x), whole the sum of band and smooth field */
void detail(const float *mean, const float *share, const float *coarse, int64_t planes, int64_t y, int64_t x, float *band,
            float *whole, int threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < planes * y; line++) {
        const float *m = mean + line * x, *s = share + line * x;
        float smooth[x], *restrict b = band + line * x, *restrict all = whole + line * x;
        row_of(coarse + line / y * (y / 2) * (x / 2), y / 2, x / 2, 2, line % y, x, smooth);
        for (int64_t j = 0; j < x; j++) {
            all[j] = s[j] > 0 ? m[j] : smooth[j];
            b[j] = all[j] - smooth[j]; /* NaN stays NaN: tiles.py finds by it how far a cell reaches */
        }
    }
}

enum { MEANS, SQUARES, REACHED };

/* Adds a row of values, of their squares, or of 1 where they reach `least`, to sums. */
INLINED void add_row(const float *row, int64_t x, int kind, float least, float weight, float *restrict sums) {
    for (int64_t j = 0; j < x; j++) {
        const float value = kind == MEANS ? row[j] : kind == SQUARES ? row[j] * row[j] : row[j] >= least ? 1.0f : 0.0f;
        sums[j] += weight * value;
    }
}

/* Returns in how many of the windows, of `reach` cells each way around `factor` cells, the cell `from` after the first lies. */
INLINED float windows(int64_t from, int64_t factor, int64_t reach) {
    const int64_t first = from - reach < 0 ? 0 : from - reach, last = from + reach >= factor ? factor - 1 : from + reach;
    return (float)(last - first + 1);
}

INLINED void pool(const float *field, int64_t planes, int64_t y, int64_t x, int64_t factor, int64_t reach, int kind,
                  float least, float *pooled, int threads) {
    const int64_t rows = y / factor, columns = x / factor, side = (2 * reach + 1) * factor;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < planes * rows; line++) {
        const float *plane = field + line / rows * y * x;
        const int64_t top = line % rows * factor;
        float padded[x + 2 * reach], *sums = padded + reach;
        memset(padded, 0, sizeof(padded));
        for (int64_t from = -reach; from < factor + reach; from++)
            if (top + from >= 0 && top + from < y)
                add_row(plane + (top + from) * x, x, kind, least, reach ? windows(from, factor, reach) : 1.0f, sums);
        for (int64_t column = 0; column < columns; column++) {
            float sum = 0;
            for (int64_t from = -reach; from < factor + reach; from++)
                sum += (reach ? windows(from, factor, reach) : 1.0f) * sums[column * factor + from];
            pooled[line * columns + column] = sum / (float)(side * side);
        }
    }
}

/* Averages over blocks of `factor` × `factor` cells the means over all windows of `reach` cells each way, 0 beyond the edge.

   field: (plane, y, x); pooled: (plane, y / factor, x / factor)
   kind: of the values (MEANS), of their squares (SQUARES), or of 1 where they reach `least` (REACHED) */
void pooled(const float *field, int64_t planes, int64_t y, int64_t x, int64_t factor, int64_t reach, int kind, float least,
            float *pooled, int threads) {
    switch (kind) { /* a constant makes the compiler vectorise */
    case MEANS: pool(field, planes, y, x, factor, reach, MEANS, least, pooled, threads); break;
    case SQUARES: pool(field, planes, y, x, factor, reach, SQUARES, least, pooled, threads); break;
    default: pool(field, planes, y, x, factor, reach, REACHED, least, pooled, threads);
    }
}

/* Adds up, over a row of a block, the products of two frames where both are known. */
INLINED void add_products(const float *a, const float *b, const float *known_a, const float *known_b, int64_t n, double *sums) {
    float both = 0, first = 0, second = 0;
#pragma omp simd reduction(+ : both, first, second)
    for (int64_t j = 0; j < n; j++) {
        const float known = known_a[j] * known_b[j];
        both += a[j] * b[j] * known;
        first += a[j] * a[j] * known;
        second += b[j] * b[j] * known;
    }
    sums[0] += both, sums[1] += first, sums[2] += second;
}

/* Averages over blocks the products of frames `lag` steps apart, and the squares of each, where both are known.

   frames, known: (case, time, y, x)
   means: (3, case, time - lag, y / block, x / block) products, squares of the earlier, of the later frame */
void lagged(const float *frames, const float *known, int64_t cases, int64_t times, int64_t y, int64_t x, int64_t block,
            int64_t lag, float *means, int threads) {
    const int64_t pairs = times - lag, rows = y / block, columns = x / block, plane = y * x;
    const int64_t all = cases * pairs * rows * columns;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t each = 0; each < cases * rows; each++) {
        const int64_t one = each / rows, row = each % rows;
        for (int64_t pair = 0; pair < pairs; pair++) /* within a row of blocks: frames are read twice, but from the cache */
            for (int64_t column = 0; column < columns; column++) {
                const int64_t start = (one * times + pair) * plane + row * block * x + column * block;
                double sums[3] = {0, 0, 0};
                for (int64_t i = start; i < start + block * x; i += x)
                    add_products(frames + i, frames + i + lag * plane, known + i, known + i + lag * plane, block, sums);
                float *to = means + ((one * pairs + pair) * rows + row) * columns + column;
                for (int64_t k = 0; k < 3; k++) to[k * all] = (float)(sums[k] / (double)(block * block));
            }
    }
}

/* Computes next = a · newest + b · before, of `cells` numbers each. */
void combined(const float *a, const float *newest, const float *b, const float *before, int64_t cells, float *restrict next,
              int threads) {
#pragma omp parallel for simd num_threads(threads) schedule(static)
    for (int64_t i = 0; i < cells; i++) next[i] = a[i] * newest[i] + b[i] * before[i];
}
