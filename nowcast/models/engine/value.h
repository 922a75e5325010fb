/* The type of values in memory: float, or with the macro BFLOAT16 the upper half of one. */

#include <stdint.h>
#include <string.h>

#ifdef BFLOAT16
typedef uint16_t value; /* bfloat16: the upper half of a float */

static inline float get(value v) {
    uint32_t bits = (uint32_t)v << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

static inline value put(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16; /* to nearest, ties to even */
    return x == x ? (value)rounded : 0x7fc0;
}
#else
typedef float value;

static inline float get(value v) { return v; }
static inline value put(float x) { return x; }
#endif
