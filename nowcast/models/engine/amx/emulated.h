/* Instructions of the tile registers in plain C, for tests on processors without AMX (macro EMULATED). */

static __thread char tiles[8][16][64];

static inline void emulated_load(int tile, const void *from, int64_t row_bytes) {
    for (int row = 0; row < 16; row++) memcpy(tiles[tile][row], (const char *)from + row * row_bytes, 64);
}

static inline void emulated_store(int tile, void *to, int64_t row_bytes) {
    for (int row = 0; row < 16; row++) memcpy((char *)to + row * row_bytes, tiles[tile][row], 64);
}

static inline float emulated_value(const char *pair, int which) {
    uint32_t bits = 0;
    memcpy((char *)&bits + 2, pair + 2 * which, 2);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline void emulated_multiply(int sums, int a, int b) {
    for (int row = 0; row < 16; row++)
        for (int column = 0; column < 16; column++) {
            float sum;
            memcpy(&sum, &tiles[sums][row][4 * column], 4);
            for (int k = 0; k < 16; k++)
                for (int which = 0; which < 2; which++)
                    sum += emulated_value(&tiles[a][row][4 * k], which) * emulated_value(&tiles[b][k][4 * column], which);
            memcpy(&tiles[sums][row][4 * column], &sum, 4);
        }
}

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_storeconfig
#undef _tile_loadconfig
#undef _tile_release
#define _tile_loadd(tile, from, row_bytes) emulated_load(tile, from, row_bytes)
#define _tile_stored(tile, to, row_bytes) emulated_store(tile, to, row_bytes)
#define _tile_zero(tile) memset(tiles[tile], 0, sizeof tiles[tile])
#define _tile_dpbf16ps(sums, a, b) emulated_multiply(sums, a, b)
#define _tile_storeconfig(shapes) memset(shapes, 0, 64)
#define _tile_loadconfig(shapes) ((void)(shapes))
#define _tile_release() ((void)0)
