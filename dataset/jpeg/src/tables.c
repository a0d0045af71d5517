/* Huffman tables for decoding (T.81 C.2, F.2.2.3). */

#include <string.h>

#include "decode.h"

const uint8_t ZIGZAG[64] = {0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
                            41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
                            30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

static void fill(uint32_t *entries, int count, uint32_t entry) {
    for (int n = 0; n < count; n++) entries[n] = entry;
}

void forget(Tables *tables) {
    for (int n = 0; n < TABLES; n++) tables->table[n].known = 0;
}

#define ENTRY(bits, either, growth, value)                                                                             \
    ((uint32_t)(bits) | (uint32_t)(either) << 6 | (uint32_t)(growth) << 12 | (uint32_t)(value) << 17)

int make_table(Tables *tables, int number, const uint8_t *from, int size) {
    int is_dc = number < 2;
    typeof(tables->table[0]) *table = &tables->table[number];
    if (table->known == size && memcmp(table->made_from, from, (size_t)size) == 0) return 1;
    table->known = 0;
    memset(table->values, 0, sizeof table->values);
    memcpy(table->values, from + 16, (size_t)(size - 16));
    fill(tables->lookup[number], 1 << LOOK, ENTRY(0, 0, 1, 0));
    uint32_t code = 0;
    int place = 0;
    for (int length = 1; length <= 16; length++) {
        table->offset[length] = place - (int)code;
        for (int n = 0; n < from[length - 1]; n++, code++, place++) {
            int symbol = table->values[place], bits = symbol & 15, run = symbol >> 4;
            if (code >> length || (is_dc && run)) return 0;
            int spare = LOOK - length - bits;
            uint32_t *entries = tables->lookup[number] + (code << LOOK >> length);
            if (length > LOOK) continue;
            if (bits == 0 && (is_dc || run == 15)) fill(entries, 1 << spare, ENTRY(length, 0, run + 1, 0));
            else if (bits == 0) fill(entries, 1 << spare, ENTRY(length, 63, 0, 0)); /* the end of the block */
            else if (spare < 0) fill(entries, 1 << (LOOK - length), ENTRY(0, 0, 1, length << 8 | symbol));
            else
                for (int extra = 0; extra < 1 << bits; extra++) {
                    int value = extra >> (bits - 1) ? extra : extra - (1 << bits) + 1;
                    fill(entries + (extra << spare), 1 << spare, ENTRY(length + bits, 0, run + 1, value));
                }
        }
        table->limit[length] = code << (16 - length);
        code <<= 1;
    }
    table->limit[17] = UINT32_MAX;
    memcpy(table->made_from, from, (size_t)size);
    table->known = size;
    return 1;
}
