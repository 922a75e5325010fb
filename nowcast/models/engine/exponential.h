/* What the C sources of this folder share. */

#include <stdint.h>
#include <string.h>

/* e^x as 2^n times a polynomial (expf of the Cephes library), with an error of up to 2 units in the last place. The compiler
   can vectorise it. NaN stays NaN. */
static inline float exponential(float x) {
    float bounded = x > 88.0f ? 88.0f : (x < -87.0f ? -87.0f : x);
    float shifted = bounded * 1.44269504f + 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer */
    float n = shifted - 12582912.0f;
    float r = (bounded - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits - 0x4b400000u + 127u) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}
