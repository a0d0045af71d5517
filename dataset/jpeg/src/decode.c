/* Windows of sequential JPEGs: the intervals under them, several at a time, to planes of samples.
 *
 * Entropy decoding waits for each code before it can read the next. Intervals between restart markers stand alone, so
 * lanes read some of them in turns, symbol by symbol, and the processor works on one while another waits. */

#include "decode.h"

#include <string.h>

#include "idct.h"

enum {
    LANES = 4,
    MOST = 16,                      /* blocks that a lane reads at a time */
    LAST = 64 * (MOST + 1) - 1,     /* index of the last of their coefficients: the first block is number 1 at least */
    INDICES = LAST + 1 + 32,        /* what a damaged block may reach */
    SLACK = 64 * 32 * MOST / 8 + 16 /* bytes that damaged blocks may be read beyond the end */
};

typedef struct {
    const Interval *interval;
    const uint8_t *end; /* of its bytes */
    uint8_t *bytes;
    int64_t mcu;    /* the next to be read */
    int32_t blocks; /* that are being read, the last of the lane's coefficients */
    uint32_t dc[3];
} Lane;

typedef struct {
    Image *image;
    Interval *interval, *end; /* the next to be read, and one past the last */
    Lane lane[LANES];
    uint64_t place[LANES]; /* the next bit of each lane: address * 8 + bit */
    uint32_t at[LANES];    /* index of its last coefficient, in zigzag order from block to block */
    uint16_t natural[INDICES],
        table[INDICES]; /* by that index: in natural order, and where the next code's lookup begins */
    int16_t coefficients[LANES][INDICES];
} Reader;

/* Bits from `place` on, the first one highest; 57 of them at least. */
INLINE uint64_t bits_at(uint64_t place) { return load_big((const uint8_t *)(place >> 3)) << (place & 7); }

/* The lane's next coefficient, where its lookup says no more than `entry`; false where it is no code. */
static int slow_symbol(Reader *reader, int n, uint32_t entry) {
    uint64_t bits = bits_at(reader->place[n]);
    uint32_t before = reader->at[n] - 1, number = reader->table[before] >> LOOK;
    typeof(reader->image->tables->table[0]) *table = &reader->image->tables->table[number];
    int length = (int)(entry >> 25), symbol = (int)(entry >> 17 & 255);
    reader->coefficients[n][reader->natural[reader->at[n]]] = 0;
    if (!length) {
        uint32_t code = (uint32_t)(bits >> 48);
        for (length = LOOK + 1; code >= table->limit[length]; length++) continue;
        if (length > 16) return 0;
        symbol = table->values[((int)(code >> (16 - length)) + table->offset[length]) & 255];
    }
    int size = symbol & 15, run = symbol >> 4, extra = (int)(bits << length >> 1 >> (63 - size));
    reader->place[n] += (uint64_t)(length + size);
    if (!size) {
        reader->at[n] = number < 2 ? before + 1 : run == 15 ? before + 16 : before | 63;
        return 1;
    }
    reader->at[n] = before + (uint32_t)run + 1;
    reader->coefficients[n][reader->natural[reader->at[n]]] =
        (int16_t)(extra >> (size - 1) ? extra : extra - (1 << size) + 1);
    return 1;
}

/* Reads with as many lanes until one of them, which is returned, has all its blocks; -1 where a code is damaged. */
INLINE int read_symbols(Reader *reader, const int lanes) {
    uint64_t place[LANES];
    uint32_t at[LANES];
    const uint32_t *lookup = reader->image->tables->lookup[0];
    int found;
#pragma GCC unroll 8
    for (int n = 0; n < lanes; n++) place[n] = reader->place[n], at[n] = reader->at[n];
    for (;;) {
#pragma GCC unroll 8
        for (int n = 0; n < lanes; n++) {
            uint32_t entry = lookup[reader->table[at[n]] + (bits_at(place[n]) >> (64 - LOOK))];
            place[n] += entry & 63;
            at[n] = (at[n] | (entry >> 6 & 63)) + (entry >> 12 & 31);
            reader->coefficients[n][reader->natural[at[n]]] = (int16_t)((int32_t)entry >> 17);
            if (__builtin_expect(!(entry & 63), 0)) {
                reader->place[n] = place[n], reader->at[n] = at[n];
                found = -1;
                if (!slow_symbol(reader, n, entry)) goto end;
                place[n] = reader->place[n], at[n] = reader->at[n];
            }
            found = n;
            if (__builtin_expect(at[n] >= LAST, 0)) goto end;
        }
    }
end:
#pragma GCC unroll 8
    for (int n = 0; n < lanes; n++) reader->place[n] = place[n], reader->at[n] = at[n];
    return found;
}

static int read_several(Reader *reader) { return read_symbols(reader, LANES); }
static int read_one(Reader *reader) { return read_symbols(reader, 1); }

/* How many coefficients a block has: 0 for none but DC, 1 for none beyond its upper left 4 x 4, 2. */
static int kind_of(const int16_t *coefficients) {
    uint64_t row[8][2];
    memcpy(row, coefficients, sizeof row);
    uint64_t beyond = row[4][0] | row[5][0] | row[6][0] | row[7][0];
    for (int n = 0; n < 8; n++) beyond |= row[n][1];
    uint64_t corner = row[1][0] | row[2][0] | row[3][0] | (row[0][0] & ~(uint64_t)0xFFFF);
    return (beyond != 0) + ((beyond | corner) != 0);
}

/* Samples of a lane's blocks, as far as they are wanted. */
static void transform(Reader *reader, int n) {
    Lane *lane = &reader->lane[n];
    const Image *image = reader->image;
    struct {
        int16_t *coefficients;
        const int16_t *steps;
        uint8_t *out;
        int64_t stride;
    } of_kind[3][MOST], *one;
    int count[3] = {0};
    int16_t *coefficients = reader->coefficients[n] + 64 * (MOST + 1 - lane->blocks);
    int64_t row = lane->mcu / image->mcu_columns, column = lane->mcu % image->mcu_columns;
    for (int number = 0; number < lane->blocks; row += ++column == image->mcu_columns, column %= image->mcu_columns) {
        for (int k = 0; k < image->blocks; k++, number++, coefficients += 64) {
            const Block *block = &image->block[k];
            const Component *component = &image->component[block->component];
            int64_t down = row * component->vertical + block->down - component->top;
            int64_t right = column * component->across + block->right - component->left;
            coefficients[0] = (int16_t)(lane->dc[block->component] += (uint32_t)coefficients[0]);
            int kind = kind_of(coefficients), is_wanted = down >= 0 && down < component->bottom - component->top &&
                                                          right >= 0 && right < component->right - component->left;
            of_kind[kind][count[kind]].coefficients = coefficients;
            of_kind[kind][count[kind]].steps = block->steps;
            of_kind[kind][count[kind]].out = component->samples + 8 * (right * component->stride + down);
            of_kind[kind][count[kind]].stride = component->stride;
            count[kind] += is_wanted;
        }
    }
    for (one = of_kind[0]; one < of_kind[0] + count[0]; one++)
        idct_flat(one->coefficients, one->steps, one->out, one->stride);
    for (one = of_kind[1]; one < of_kind[1] + count[1]; one++)
        idct_block(one->coefficients, one->steps, 4, one->out, one->stride);
    for (one = of_kind[2]; one < of_kind[2] + count[2]; one++)
        idct_block(one->coefficients, one->steps, 8, one->out, one->stride);
    memset(reader->coefficients[n] + 64 * (MOST + 1 - lane->blocks), 0, (size_t)lane->blocks * 128);
    lane->mcu += lane->blocks / image->blocks;
}

/* Gives a lane more blocks to read, of its interval or of the next; false where there are none. */
static int feed(Reader *reader, int n) {
    Lane *lane = &reader->lane[n];
    const Image *image = reader->image;
    if (!lane->interval || lane->mcu == lane->interval->last) {
        if (reader->interval == reader->end) return 0;
        lane->interval = reader->interval++;
        int64_t count;
        unstuff(image->data, lane->interval->to, lane->interval->from, lane->bytes, &count);
        lane->end = lane->bytes + count;
        memset(lane->bytes + count, 0, 64);
        lane->mcu = lane->interval->first;
        memset(lane->dc, 0, sizeof lane->dc);
        reader->place[n] = (uint64_t)lane->bytes << 3;
    }
    int64_t mcus = lane->interval->last - lane->mcu, most = MOST / image->blocks;
    lane->blocks = image->blocks * (int32_t)(mcus < most ? mcus : most);
    reader->at[n] = (uint32_t)(LAST - 64 * lane->blocks);
    return 1;
}

static void move_lane(Reader *reader, int from, int to) {
    Lane *lane = &reader->lane[to];
    uint8_t *bytes = lane->bytes;
    *lane = reader->lane[from];
    reader->lane[from].bytes = bytes;
    reader->place[to] = reader->place[from], reader->at[to] = reader->at[from];
    memcpy(reader->coefficients[to], reader->coefficients[from], sizeof reader->coefficients[to]);
}

/* The indices' tables, and no coefficients. */
static void prepare(Reader *reader) {
    const Image *image = reader->image;
    int first =
        MOST + 1 - MOST / image->blocks * image->blocks; /* a block that begins an MCU, like the one after the last */
    for (int at = 0; at < INDICES; at++) {
        const Block *next = &image->block[((at + 1) / 64 + image->blocks - first % image->blocks) % image->blocks];
        reader->natural[at] = (uint16_t)(at < LAST ? (at & ~63) | ZIGZAG[at & 63] : LAST);
        reader->table[at] = (uint16_t)(((at + 1) & 63 ? next->ac : next->dc) << LOOK);
    }
    memset(reader->coefficients, 0, sizeof reader->coefficients);
}

int decode_parts(Image *image, Arena *arena) {
    Reader *reader = take(arena, sizeof *reader);
    if (!reader) return NO_MEMORY;
    memset(reader->lane, 0, sizeof reader->lane);
    reader->image = image;
    int status = list_intervals(image, arena, &reader->interval, &reader->end), lanes = 0;
    if (status) return status;
    prepare(reader);
    int64_t longest = 0;
    for (const Interval *one = reader->interval; one < reader->end; one++)
        if (one->to - one->from > longest) longest = one->to - one->from;
    for (; lanes < LANES && reader->interval < reader->end; lanes++) {
        if (!(reader->lane[lanes].bytes = take(arena, (size_t)longest + SLACK))) return NO_MEMORY;
        feed(reader, lanes);
    }
    while (lanes) {
        int found = lanes == LANES ? read_several(reader) : read_one(reader);
        if (found < 0 || reader->at[found] > LAST) return DAMAGED;
        if (reader->place[found] > (uint64_t)reader->lane[found].end << 3) return DAMAGED; /* too short */
        transform(reader, found);
        if (!feed(reader, found) && found != --lanes) move_lane(reader, lanes, found);
    }
    return DONE;
}
