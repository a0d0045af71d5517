/* The entropy-coded data of a sequential JPEG as symbols, T.81 F.2.2; and whether a file holds given ones. */

#include "pack.h"

enum {
    LOOK = 10,         /* bits that the lookup decides; longer codes are rare */
    HARMLESS = 2,      /* bytes that an interval may hold beyond its blocks: encoders pad so; more are lost sync */
    LARGEST = 2 * 1280 /* twice a coefficient less half a step, for rounding; samples of 8 bits give 1024 at most */
};

/* A Huffman table for decoding. An entry is `row << 24 | symbol << 16 | advance in the block << 8 | bits with the extra
 * ones`, 0 for none. */
typedef struct {
    uint32_t lookup[1 << LOOK]; /* by the next bits; 0 where the code is longer */
    uint32_t entries[256];      /* by place, without the bits of the code */
    int64_t beyond[17];         /* one past the largest code of each length */
    int64_t offset[17];         /* from a code to its place */
} Decoder;

/* The next bits, the first of them highest. */
typedef struct {
    uint64_t window;
    int64_t bits; /* in the window */
    const uint8_t *next;
} Reader;

/* As `make_codes`. */
static int64_t make_decoder(const uint8_t *table, int64_t row, Decoder *decoder) {
    int64_t code = 0, place = 0, filled = 0;
    memset(decoder->entries, 0, sizeof decoder->entries);
    for (int64_t length = 1; length <= 16; length++, code <<= 1) {
        decoder->offset[length] = place - code;
        for (int64_t last = place + table[length - 1]; place < last; place++, code++) {
            uint32_t symbol = table[16 + place], extra = symbol & 15, run = symbol >> 4;
            uint32_t advance = row % 2 == 0 ? 1 : extra ? run + 1 : run == 15 ? 16 : 80;
            if (code + 1 >= 1 << length || (row % 2 == 0 && run)) return BAD_TABLE;
            decoder->entries[place] = (uint32_t)row << 24 | symbol << 16 | advance << 8 | extra;
            for (int64_t end = length <= LOOK ? (code + 1) << (LOOK - length) : 0; filled < end; filled++)
                decoder->lookup[filled] = decoder->entries[place] + (uint32_t)length;
        }
        decoder->beyond[length] = code;
    }
    memset(decoder->lookup + filled, 0, sizeof decoder->lookup - sizeof *decoder->lookup * (size_t)filled);
    return 0;
}

/* The entry of a code of more than LOOK bits. */
static uint32_t long_code(const Decoder *decoder, uint64_t window) {
    for (int64_t length = LOOK + 1; length <= 16; length++) {
        int64_t code = (int64_t)(window >> (64 - length));
        if (code < decoder->beyond[length]) {
            uint32_t entry = decoder->entries[(code + decoder->offset[length]) & 255];
            return entry ? entry + (uint32_t)length : 0;
        }
    }
    return 0;
}

/* Makes them 56 at least. */
INLINE void refill(Reader *reader) {
    reader->window |= load_big(reader->next) >> reader->bits;
    reader->next += (63 - reader->bits) >> 3;
    reader->bits |= 56;
}

/* The next entry. It and its extra bits are in the window, where LOOK + 15 bits were: a longer code refills it. */
INLINE uint32_t next_entry(const Decoder *decoder, Reader *reader) {
    uint32_t entry = decoder->lookup[reader->window >> (64 - LOOK)];
    if (__builtin_expect(!entry, 0)) {
        refill(reader);
        entry = long_code(decoder, reader->window);
    }
    return entry;
}

/* The extra bits of the next entry. */
INLINE uint32_t extra_bits(const Reader *reader, uint32_t entry) {
    return (uint32_t)(reader->window >> (-(entry & 63) & 63)) & ((1u << (entry >> 16 & 15)) - 1);
}

INLINE void skip(Reader *reader, uint32_t entry) {
    reader->window <<= entry & 63;
    reader->bits -= entry & 255;
}

/* Bits that were read of the bytes from ``clean``. */
INLINE int64_t bits_read(const Reader *reader, const uint8_t *clean) {
    return 8 * (reader->next - clean) - reader->bits;
}

/* A difference by its extra bits, F.2.2.1. */
INLINE int64_t difference_of(uint32_t extra, uint32_t size) {
    return size && !(extra >> (size - 1)) ? (int64_t)extra - (1 << size) + 1 : extra;
}

/* The symbol of a DC difference, F.1.2.1. */
INLINE uint32_t dc_symbol(int64_t difference) {
    uint32_t magnitude = (uint32_t)(difference < 0 ? -difference : difference);
    uint32_t size = magnitude ? 32 - (uint32_t)__builtin_clz(magnitude) : 0;
    return size << 16 | (uint32_t)(difference < 0 ? difference + (1 << size) - 1 : difference);
}

/* The position of a marker behind fill bytes. */
static int64_t pass_fill(const uint8_t *data, int64_t size, int64_t position) {
    while (position + 1 < size && data[position + 1] == 0xFF) position++;
    return position;
}

/* The most extra bits of a coefficient, by its place in zigzag order plus one; 0 beyond the block. */
static void fill_limits(const Frame *frame, int8_t limits[4][192]) {
    memset(limits, 0, sizeof(int8_t[4][192]));
    for (int n = 0; n < 4; n++) memset(limits[n] + 65, -1, 15); /* a run of 16 zeros beyond the block */
    for (int64_t component = 0; component < frame->header.components; component++)
        for (int64_t k = 0; k < 64; k++)
            for (int64_t bits = 1; bits < 16 && frame->steps[component][k] * ((1 << bits) - 1) <= LARGEST; bits++)
                limits[component][k + 1] = (int8_t)bits;
}

/* One AC symbol of a block, whose next coefficient is number k. */
#define READ_AC()                                                                                                      \
    do {                                                                                                               \
        uint32_t entry = next_entry(ac, &reader);                                                                      \
        if (__builtin_expect(!entry, 0)) return NO_CODE;                                                               \
        *out++ = (entry & 0xFFFF0000u) | extra_bits(&reader, entry);                                                   \
        counts[entry >> 16]++;                                                                                         \
        skip(&reader, entry);                                                                                          \
        k += entry >> 8 & 255;                                                                                         \
        if (__builtin_expect((int32_t)(entry >> 16 & 15) > limit[k], 0)) return k > 64 ? TOO_MANY : TOO_LARGE;         \
    } while (0)

/* The scan of ``data`` as ``symbols``, DC differences counted from restarts every ``interval`` MCUs.
 *
 * ``clean`` has room for ``size`` + ROOM bytes, ``symbols`` for 8 * ``size`` or 64 a block, and for the restarts and
 * ROOM more. ``results``: the number of symbols; the position of the marker behind the scan; bytes left over at the end
 * of intervals, at most HARMLESS in each; from the fourth on, [4, 256], how often each symbol occurs.
 * Returns 0 or the problem. */
int64_t pack_walk(const uint8_t *data, int64_t size, const Frame *frame, int64_t interval, uint8_t *clean,
                  uint32_t *symbols, int64_t *results) {
    int8_t limits[4][192];
    Decoder decoders[4];
    int64_t before[4] = {0}, after[4] = {0}; /* DC predictions */
    int64_t available = 0, unread = 0, restarts = 0, position = frame->header.scan, *counts = results + 3;
    int64_t mcus = frame->rows * frame->columns, restart = frame->header.restart;
    int64_t to_restart = restart, to_interval = interval;
    Reader reader = {0, 0, clean};
    uint32_t *out = symbols;
    memset(results, 0, sizeof *results * (3 + 4 * 256));
    fill_limits(frame, limits);
    for (int64_t row = 0; row < 4; row++)
        if (frame->used[row] && make_decoder(frame->tables[row], row, &decoders[row])) return BAD_TABLE;
    for (int64_t mcu = 0; mcu < mcus; mcu++, to_interval--, to_restart--) {
        if (!to_interval) {
            *out++ = RESTART;
            memset(after, 0, sizeof after);
            to_interval = interval;
        }
        if (!mcu || (restart && !to_restart)) {
            if (mcu) {
                int64_t left = available - (bits_read(&reader, clean) + 7) / 8;
                if (left > HARMLESS) return LEFT_OVER;
                unread += left;
                position = pass_fill(data, size, position);
                if (position + 2 > size || data[position + 1] != (0xD0 | (restarts++ & 7))) return NO_RESTART;
                position += 2;
            }
            position = unstuff(data, size, position, clean, &available);
            memset(clean + available, 0, ROOM);
            memset(before, 0, sizeof before);
            reader = (Reader){0, 0, clean};
            to_restart = restart;
        }
        for (int64_t block = 0; block < frame->blocks; block++) {
            int64_t component = frame->component[block], k = 1;
            const Decoder *dc = &decoders[frame->dc[block]], *ac = &decoders[frame->ac[block]];
            const int8_t *limit = limits[component];
            refill(&reader);
            uint32_t first = next_entry(dc, &reader);
            if (!first) return NO_CODE;
            int64_t level = before[component] + difference_of(extra_bits(&reader, first), first >> 16 & 15);
            if ((2 * (level < 0 ? -level : level) - 1) * frame->steps[component][0] > LARGEST) return TOO_LARGE;
            skip(&reader, first);
            uint32_t symbol = dc_symbol(level - after[component]) | (first & 0xFF000000u);
            before[component] = after[component] = level;
            *out++ = symbol;
            counts[symbol >> 16]++;
            do { /* a refill does for two */
                refill(&reader);
                READ_AC();
                if (k >= 64) break;
                READ_AC();
            } while (k < 64);
        }
        if (bits_read(&reader, clean) > 8 * available) return TOO_SHORT;
    }
    int64_t left = available - (bits_read(&reader, clean) + 7) / 8;
    if (left > HARMLESS) return LEFT_OVER;
    position = pass_fill(data, size, position);
    results[0] = out - symbols;
    results[1] = position;
    results[2] = unread + left;
    if (position + 1 >= size) return NO_END;
    return data[position + 1] == 0xD9 ? 0 : MORE_SCANS;
}

/* Whether two files have the same segments but for DHT and DRI, down to the scan header. */
static int same_headers(const uint8_t *data, int64_t size, const uint8_t *stored, int64_t stored_size) {
    const uint8_t *files[2] = {data, stored};
    int64_t sizes[2] = {size, stored_size}, positions[2] = {2, 2};
    for (;;) {
        Segment segments[2];
        for (int file = 0; file < 2; file++) {
            do {
                next_segment(files[file], sizes[file], positions[file], &segments[file]);
                positions[file] = segments[file].end;
            } while (segments[file].marker == 0xC4 || segments[file].marker == 0xDD);
        }
        int64_t length = segments[0].end - segments[0].start;
        if (length != segments[1].end - segments[1].start ||
            memcmp(data + segments[0].start, stored + segments[1].start, (size_t)length))
            return 0;
        if (segments[0].marker == 0xDA) return 1;
    }
}

/* Whether ``stored`` is ``data``, which `pack_walk` has read, with restarts every ``interval`` MCUs: the same headers,
 * bit for bit the codes of these ``symbols`` and padding of ones, markers in turn, and nothing else.
 *
 * No code is the beginning of another: where the bits of a symbol stand, any decoder reads that symbol. */
int64_t pack_compare(const uint8_t *data, int64_t size, const uint8_t *stored, int64_t stored_size, int64_t interval,
                     const uint32_t *symbols, int64_t number, uint8_t *clean) {
    Frame frame;
    uint64_t codes[4 * 256] = {0};
    if (pack_frame(stored, stored_size, &frame) || frame.header.restart != interval || frame.header.stray ||
        memcmp(data, stored, 2) || !same_headers(data, size, stored, stored_size))
        return 0;
    for (int64_t row = 0; row < 4; row++)
        if (frame.used[row] && make_codes(frame.tables[row], row, codes + (row << 8))) return 0;
    const uint32_t *end = symbols + number;
    int64_t position = frame.header.scan, count = 0, restarts = 0;
    for (;; symbols++, restarts++, position += 2) {
        position = unstuff(stored, stored_size, position, clean, &count);
        uint64_t at = 0, last = 8 * (uint64_t)count, wrong = 0;
        while (symbols < end && *symbols != RESTART && at < last) {
            uint64_t entry = codes[*symbols >> 16], bits = entry & 63;
            uint64_t window = load_big(clean + (at >> 3)) << (at & 7);
            wrong |= !bits | ((window >> (-bits & 63)) ^ (entry >> 8 | (*symbols++ & 0xFFFF)));
            at += bits;
            if (symbols < end && *symbols != RESTART) { /* a second is in the window: 57 bits, and two of 16 and 12 */
                window <<= bits;
                entry = codes[*symbols >> 16], bits = entry & 63;
                wrong |= !bits | ((window >> (-bits & 63)) ^ (entry >> 8 | (*symbols++ & 0xFFFF)));
                at += bits;
            }
        }
        int64_t padding = -(int64_t)at & 7, ones = (1 << padding) - 1;
        if (wrong || !count || at + (uint64_t)padding != last || (clean[count - 1] & ones) != ones ||
            position + 2 > stored_size)
            return 0;
        if (symbols == end) return position + 2 == stored_size && stored[position + 1] == 0xD9;
        if (*symbols != RESTART || stored[position + 1] != (0xD0 | (restarts & 7))) return 0;
    }
}
