/* Adds the correction of each place to guidance: `Place.apply` (place.py) in C, in one pass over memory. */

#include <math.h>
#include <stdint.h>

/* Writes coded + weight * shift, rounded to whole steps and limited to +-largest; missing cells stay as they are.

   coded, placed: (lead, rate, y, x) guidance and the same corrected, of which rows by columns cells lie on the grid
   shift: at the first of these cells, of (rate, plane) with rows of `width` cells; weight: (lead, rate) */
void place(const int8_t *coded, const float *shift, const float *weight, int64_t leads, int64_t rates, int64_t y, int64_t x,
           int64_t rows, int64_t columns, int64_t plane, int64_t width, int missing, int largest, int8_t *placed,
           int threads) {
    const float most = (float)largest;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t field = 0; field < leads * rates; field++)
        for (int64_t row = 0; row < rows; row++) {
            const int8_t *from = coded + (field * y + row) * x;
            const float *added = shift + field % rates * plane + row * width, factor = weight[field];
            int8_t *restrict to = placed + (field * y + row) * x;
            for (int64_t c = 0; c < columns; c++) {
                const float sum = rintf(from[c] + factor * added[c]), least = -most;
                const float limited = sum > most ? most : sum < least ? least : sum;
                to[c] = (int8_t)(from[c] == missing ? missing : (int)limited);
            }
        }
}
