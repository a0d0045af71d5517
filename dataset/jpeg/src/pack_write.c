/* Symbols as a JPEG again, with restart markers and with Huffman tables made for them: T.81 F.1.2, K.2. */

#include "pack.h"

enum { NODES = 257, CHUNK = 1 << 14 };

/* The weight of a node and its place, so that the last of the least is the least. */
INLINE uint64_t key_of(uint64_t weight, int64_t place) { return weight << 9 | (uint64_t)(511 - place); }

/* The place of the least. */
INLINE int64_t least_of(const uint64_t *keys, int64_t count) {
    uint64_t least = UINT64_MAX;
    for (int64_t at = 0; at < count; at++) least = keys[at] < least ? keys[at] : least;
    return (int64_t)(511 - (least & 511));
}

int64_t optimal_code(const int64_t *counts, uint8_t lengths[16], uint8_t *values) {
    uint64_t keys[NODES];
    int64_t used[NODES], node_at[NODES], parent[2 * NODES], depth[2 * NODES], starts[NODES] = {0}, nodes = 0;
    int64_t of_length[NODES + 17] = {0};
    for (int64_t symbol = 0; symbol <= 256; symbol++) { /* 256 takes the code of ones alone, which JPEG forbids */
        if (symbol < 256 && !counts[symbol]) continue;
        keys[nodes] = key_of(symbol < 256 ? (uint64_t)counts[symbol] : 1, nodes);
        used[nodes] = symbol;
        node_at[nodes] = nodes;
        nodes++;
    }
    int64_t made = nodes;
    for (int64_t last = nodes - 1; last > 0; last--, made++) {
        int64_t least = least_of(keys, last + 1);
        uint64_t weight = keys[least] >> 9;
        keys[least] = UINT64_MAX;
        int64_t second = least_of(keys, last + 1);
        weight += keys[second] >> 9;
        parent[node_at[least]] = parent[node_at[second]] = made;
        node_at[least] = made;
        keys[least] = key_of(weight, least);
        node_at[second] = node_at[last];
        keys[second] = key_of(keys[last] >> 9, second);
    }
    depth[made - 1] = 0;
    for (int64_t node = made - 2; node >= 0; node--) depth[node] = depth[parent[node]] + 1;
    for (int64_t node = 0; node < nodes - 1; node++) of_length[depth[node]]++;
    for (int64_t length = 1; length < NODES; length++) starts[length] = starts[length - 1] + of_length[length - 1];
    for (int64_t node = 0; node < nodes - 1; node++) values[starts[depth[node]]++] = (uint8_t)used[node];
    of_length[depth[nodes - 1]]++;
    for (int64_t length = nodes; length > 16; length--) { /* figure K.3: shorten codes of more than 16 bits */
        while (of_length[length]) {
            int64_t shorter = length - 2;
            while (!of_length[shorter]) shorter--;
            of_length[length] -= 2;
            of_length[length - 1]++;
            of_length[shorter + 1] += 2;
            of_length[shorter]--;
        }
    }
    int64_t longest = 16;
    while (!of_length[longest]) longest--;
    of_length[longest]--; /* the one kept free */
    for (int64_t length = 1; length <= 16; length++) lengths[length - 1] = (uint8_t)of_length[length];
    return nodes - 1;
}

/* Copy with a zero behind each FF; the end of what was written. */
INLINE uint8_t *stuff(const uint8_t *raw, int64_t size, uint8_t *out) {
    int64_t at = 0;
    while (at < size) {
        if (at + 8 <= size) {
            uint64_t word;
            memcpy(&word, raw + at, 8);
            if (!((~word - 0x0101010101010101u) & word & 0x8080808080808080u)) { /* no byte is FF */
                memcpy(out, &word, 8);
                out += 8;
                at += 8;
                continue;
            }
        }
        for (int64_t end = at + 8 < size ? at + 8 : size; at < end; at++) {
            *out++ = raw[at];
            if (raw[at] == 0xFF) *out++ = 0;
        }
    }
    return out;
}

/* The entropy-coded data of ``symbols``; their end. */
static uint8_t *write_symbols(const uint32_t *symbols, int64_t number, const uint64_t *codes, uint8_t *out) {
    uint8_t raw[CHUNK + 16]; /* not stuffed yet */
    const uint32_t *end = symbols + number;
    for (int64_t restarts = 0;; restarts++, symbols++) {
        uint8_t *to = raw;
        uint64_t window = 0, bits = 0;
        while (symbols < end && *symbols != RESTART) {
            uint64_t entry = codes[*symbols >> 16];
            window = window << (entry & 63) | entry >> 8 | (*symbols++ & 0xFFFF);
            bits += entry & 63;
            if (symbols < end && *symbols != RESTART) { /* a second one fits: 7 bits, and two of 16 and 12 */
                entry = codes[*symbols >> 16];
                window = window << (entry & 63) | entry >> 8 | (*symbols++ & 0xFFFF);
                bits += entry & 63;
            }
            store_big(to, window << (-bits & 63));
            to += bits >> 3;
            bits &= 7;
            if (to >= raw + CHUNK) {
                out = stuff(raw, to - raw, out);
                to = raw;
            }
        }
        if (bits) *to++ = (uint8_t)(window << (8 - bits) | 0xFF >> bits);
        out = stuff(raw, to - raw, out);
        if (symbols == end) return out;
        *out++ = 0xFF;
        *out++ = (uint8_t)(0xD0 | (restarts & 7));
    }
}

/* A tiled file: the headers of ``data``, but for its tables; tables made for ``counts``, [4, 256]; a restart every
 * ``interval`` MCUs; ``symbols``. ``out`` has room for the headers, 8 bytes a symbol and ROOM. Returns its bytes. */
int64_t pack_write(const uint8_t *data, int64_t size, const Frame *frame, int64_t interval, const uint32_t *symbols,
                   int64_t number, const int64_t *counts, uint8_t *out) {
    uint64_t codes[4 * 256] = {0};
    uint8_t *start = out;
    *out++ = 0xFF;
    *out++ = 0xD8;
    for (int64_t position = 2;;) {
        Segment segment;
        next_segment(data, size, position, &segment);
        if (segment.start >= frame->header.sos) break;
        position = segment.end;
        if (segment.marker == 0xC4 || segment.marker == 0xDD) continue;
        memcpy(out, data + segment.start, (size_t)(segment.end - segment.start));
        out += segment.end - segment.start;
    }
    uint8_t *tables = out;
    out += 4;
    for (int64_t row = 0; row < 4; row++) {
        if (!frame->used[row]) continue;
        *out++ = (uint8_t)((row & 1) << 4 | row >> 1);
        int64_t values = optimal_code(counts + (row << 8), out, out + 16);
        make_codes(out, row, codes + (row << 8));
        out += 16 + values;
    }
    int64_t length = out - tables - 2;
    memcpy(tables, (uint8_t[]){0xFF, 0xC4, (uint8_t)(length >> 8), (uint8_t)length}, 4);
    memcpy(out, (uint8_t[]){0xFF, 0xDD, 0, 4, (uint8_t)(interval >> 8), (uint8_t)interval}, 6);
    out += 6;
    int64_t scan = frame->header.scan - frame->header.sos;
    memcpy(out, data + frame->header.sos, (size_t)scan);
    out = write_symbols(symbols, number, codes, out + scan);
    *out++ = 0xFF;
    *out++ = 0xD9;
    return out - start;
}
