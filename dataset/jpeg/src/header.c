/* The headers of a JPEG file, as libjpeg reads them: ITU-T T.81, annex B. header.py says what they mean. */

#include "codec.h"

enum { TRUNCATED = 1, LENGTH, TWO_FRAMES, FRAME, SCAN, NO_FRAME }; /* the keys of header.py's _PROBLEMS */

static int64_t word(const uint8_t *data) { return (int64_t)data[0] << 8 | data[1]; }

/* The first segment from ``position`` on. It may end beyond the data. */
void next_segment(const uint8_t *data, int64_t size, int64_t position, Segment *segment) {
    int64_t stray = 0;
    for (;;) {
        for (; position < size && data[position] != 0xFF; position++) stray++;
        while (position + 1 < size && data[position + 1] == 0xFF) /* fill bytes */
            position++;
        if (position + 4 > size) {
            *segment = (Segment){0, size, size, stray};
            return;
        }
        int64_t marker = data[position + 1];
        if (marker > 1 && !(marker >= 0xD0 && marker <= 0xD7)) {
            *segment = (Segment){marker, position, position + 2 + word(data + position + 2), stray};
            return;
        }
        stray += 2; /* no marker, or one without a segment */
        position += 2;
    }
}

/* The frame header at ``start``; the key of what is wrong with it, or 0. */
static int64_t read_frame(const uint8_t *data, int64_t start, int64_t end, Header *header) {
    if (header->sof) return TWO_FRAMES;
    int64_t size = end - start - 4;
    if (size < 6 || size != 6 + 3 * data[start + 9]) return FRAME;
    header->sof = data[start + 1];
    header->frame = start;
    header->precision = data[start + 4];
    header->height = word(data + start + 5);
    header->width = word(data + start + 7);
    header->components = data[start + 9];
    if (!header->height || !header->width || header->components < 1 || header->components > 4) return FRAME;
    for (int64_t component = 0; component < header->components; component++) {
        int64_t factor = data[start + 11 + 3 * component], wide = factor >> 4, high = factor & 15;
        if (wide < 1 || wide > 4 || high < 1 || high > 4) return FRAME;
        header->factors |= factor << 8 * component;
    }
    return 0;
}

/* The header of the first scan at ``start``, likewise. */
static int64_t read_scan(const uint8_t *data, int64_t start, int64_t end, Header *header) {
    if (!header->sof) return NO_FRAME;
    header->sos = start;
    header->scan = end;
    header->in_scan = end > start + 4 ? data[start + 4] : 0;
    if (header->in_scan < 1 || header->in_scan > header->components || end - start != 8 + 2 * header->in_scan)
        return SCAN;
    return 0;
}

/* The headers of ``data``, which begins as a JPEG. */
void parse_header(const uint8_t *data, int64_t size, Header *header) {
    *header = (Header){0};
    int64_t position = 2, problem = 0;
    while (!problem && !header->scan) {
        Segment segment;
        next_segment(data, size, position, &segment);
        int64_t marker = segment.marker, start = segment.start, end = segment.end;
        header->stray += segment.stray;
        if (!marker || end > size) problem = TRUNCATED;
        else if (marker < 0xC0 || marker == 0xD8 || marker == 0xD9 || end < start + 4) problem = LENGTH;
        else if (marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC)
            problem = read_frame(data, start, end, header);
        else if (marker == 0xDA) problem = read_scan(data, start, end, header);
        else if (marker == 0xDD && end - start != 6) problem = LENGTH;
        else if (marker == 0xDD) header->restart = word(data + start + 4);
        position = end;
    }
    if (problem) *header = (Header){.problem = problem};
}
