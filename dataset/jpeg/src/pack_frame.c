/* The headers of a sequential JPEG with one scan, down to its tables: T.81 B.2. */

#include "pack.h"

/* Quantization tables by number, each once it is there. */
typedef struct {
    uint8_t present[4];
    uint16_t values[4][64];
} Steps;

/* B.2.4.1. */
static int64_t read_steps(const uint8_t *body, int64_t size, Steps *steps) {
    while (size) {
        int64_t wide = body[0] >> 4, number = body[0] & 15, length = wide ? 129 : 65;
        if (wide > 1 || number > 3 || size < length) return STEPS_LENGTH;
        for (int64_t k = 0; k < 64; k++) {
            int64_t step = wide ? body[1 + 2 * k] << 8 | body[2 + 2 * k] : body[1 + k];
            if (!step) return STEP_ZERO;
            steps->values[number][k] = (uint16_t)step;
        }
        steps->present[number] = 1;
        body += length;
        size -= length;
    }
    return 0;
}

/* B.2.4.2. */
static int64_t read_tables(const uint8_t *body, int64_t size, Frame *frame, uint8_t present[4]) {
    while (size) {
        int64_t values = 0;
        if (size < 17 || body[0] & 0xEC) return BAD_TABLE;
        for (int64_t length = 1; length <= 16; length++) values += body[length];
        if (values > 256 || size < 17 + values) return BAD_TABLE;
        if (body[0] & 2) return MORE_TABLES;
        int64_t row = (body[0] & 1) << 1 | body[0] >> 4;
        memset(frame->tables[row], 0, TABLE);
        memcpy(frame->tables[row], body + 1, (size_t)(16 + values));
        present[row] = 1;
        body += 17 + values;
        size -= 17 + values;
    }
    return 0;
}

/* Which tables each block of an MCU takes. */
static int64_t read_blocks(const uint8_t *data, const Steps *steps, const uint8_t present[4], Frame *frame) {
    const Header *header = &frame->header;
    const uint8_t *component = data + header->frame + 10, *scan = data + header->sos + 5;
    for (int64_t number = 0; number < header->components; number++, component += 3, scan += 2) {
        int64_t dc = 2 * (scan[1] >> 4), ac = 2 * (scan[1] & 15) + 1;
        if (scan[0] != component[0] || dc > 2 || ac > 3 || !present[dc] || !present[ac]) return BAD_SCAN;
        if (component[2] > 3 || !steps->present[component[2]]) return NO_STEPS;
        memcpy(frame->steps[number], steps->values[component[2]], sizeof frame->steps[number]);
        frame->used[dc] = frame->used[ac] = 1;
        int64_t blocks = header->components > 1 ? (component[1] >> 4) * (component[1] & 15) : 1;
        if (frame->blocks + blocks > MOST_BLOCKS) return BAD_FACTORS;
        for (; blocks; blocks--, frame->blocks++) {
            frame->component[frame->blocks] = (uint8_t)number;
            frame->dc[frame->blocks] = (uint8_t)dc;
            frame->ac[frame->blocks] = (uint8_t)ac;
        }
    }
    return 0;
}

/* Whether a decoder may refuse a frame header: other than gray or three components that can be told apart, more pixels
 * a side than libjpeg reads, chroma that is not upsampled by whole numbers. */
static int is_unusual(const uint8_t *data, const Header *header) {
    const uint8_t *components = data + header->frame + 10;
    Mcu mcu = mcu_of(header);
    int unusual = header->components == 2 || header->components == 4 || header->height > 65500 || header->width > 65500;
    for (int64_t one = 0; header->components > 1 && one < header->components; one++) {
        unusual |= mcu.width / 8 % (components[3 * one + 1] >> 4) || mcu.height / 8 % (components[3 * one + 1] & 15);
        for (int64_t other = 0; other < one; other++) unusual |= components[3 * one] == components[3 * other];
    }
    return unusual;
}

/* What the segments APP0 and APP14 and the scan header say of colours and coefficients, as libjpeg reads them. */
static int64_t find_warning(const uint8_t *data, int64_t size, const Header *header) {
    int64_t is_jfif = 0, transform = 1;
    for (int64_t position = 2;;) {
        Segment segment;
        next_segment(data, size, position, &segment);
        if (segment.start >= header->sos) break;
        const uint8_t *body = data + segment.start + 4;
        int64_t length = segment.end - segment.start - 4;
        if (segment.marker == 0xE0 && length >= 14 && !memcmp(body, "JFIF", 5)) {
            if (body[5] != 1) return JFIF_VERSION | body[5] << 16 | body[6] << 8;
            is_jfif = 1;
        }
        if (segment.marker == 0xEE && length >= 12 && !memcmp(body, "Adobe", 5)) transform = body[11];
        position = segment.end;
    }
    if (header->components == 3 && !is_jfif && transform > 1) return ADOBE_TRANSFORM | transform << 8;
    const uint8_t *last = data + header->scan - 3; /* the first and last coefficient, and their bits */
    return last[0] == 0 && last[1] == 63 && last[2] == 0 ? 0 : SCAN_PARAMETERS;
}

/* The headers of ``data``, which begins as a JPEG; 0 or the problem, beside which `header` alone holds. */
int64_t pack_frame(const uint8_t *data, int64_t size, Frame *frame) {
    Header *header = &frame->header;
    Steps steps = {{0}, {{0}}};
    uint8_t present[4] = {0};
    int64_t problem = 0;
    memset(frame, 0, sizeof *frame);
    parse_header(data, size, header);
    if (header->problem || header->sof > 0xC1) return OTHER_KIND;
    if (!is_interleaved(header)) return SEVERAL_SCANS;
    frame->unusual = is_unusual(data, header);
    for (int64_t position = 2; !problem;) {
        Segment segment;
        next_segment(data, size, position, &segment);
        if (segment.start >= header->sos) break;
        const uint8_t *body = data + segment.start + 4;
        if (segment.marker == 0xC4) problem = read_tables(body, segment.end - segment.start - 4, frame, present);
        else if (segment.marker == 0xDB) problem = read_steps(body, segment.end - segment.start - 4, &steps);
        else if (segment.marker > 0xC1 && segment.marker != 0xDD && (segment.marker & 0xF0) != 0xE0 &&
                 segment.marker != 0xFE)
            frame->unusual = 1; /* neither a frame header, DRI, APPn nor a comment */
        position = segment.end;
    }
    frame->warning = find_warning(data, size, header);
    Mcu mcu = mcu_of(header);
    frame->rows = (header->height + mcu.height - 1) / mcu.height;
    frame->columns = (header->width + mcu.width - 1) / mcu.width;
    return problem ? problem : read_blocks(data, &steps, present, frame);
}

/* C.2: the codes of each length are consecutive, and none is of ones alone. In a DC table no symbol is above 15. */
int64_t make_codes(const uint8_t *table, int64_t row, uint64_t codes[256]) {
    const uint8_t *value = table + 16;
    uint64_t code = 0;
    for (uint64_t length = 1; length <= 16; length++, code <<= 1)
        for (int64_t count = table[length - 1]; count; count--, code++, value++) {
            uint64_t extra = *value & 15;
            if (code + 1 >= (uint64_t)1 << length || (row % 2 == 0 && *value > 15)) return BAD_TABLE;
            codes[*value] = code << extra << 8 | (length + extra);
        }
    return 0;
}
