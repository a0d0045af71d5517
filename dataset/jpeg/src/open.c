/* The headers of a sequential Huffman JPEG with one scan, ready for decoding. */

#include <string.h>

#include "decode.h"

enum { DHT = 0xC4, DQT = 0xDB, APP0 = 0xE0, APP14 = 0xEE, LARGEST = 1 << 27 }; /* pixels */

/* T.81 B.2.4.1; `known` gets a bit for each table. */
static int read_steps(Image *image, const uint8_t *body, int64_t size, int *known) {
    while (size > 0) {
        int wide = body[0] >> 4, number = body[0] & 15;
        if (wide > 1 || number > 3 || size < 65 + 64 * wide) return OTHER;
        for (int n = 0; n < 64; n++) {
            int step = wide ? body[1 + 2 * n] << 8 | body[2 + 2 * n] : body[1 + n];
            if (!step) return OTHER;
            image->steps[number][ZIGZAG[n]] = (int16_t)step;
        }
        *known |= 1 << number;
        body += 65 + 64 * wide, size -= 65 + 64 * wide;
    }
    return DONE;
}

/* T.81 B.2.4.2; `known` gets a bit for each table: DC 0, DC 1, AC 0, AC 1. */
static int read_tables(Image *image, const uint8_t *body, int64_t size, int *known) {
    while (size > 0) {
        if (size < 17) return OTHER;
        int length = 16, class = body[0] >> 4, number = body[0] & 15;
        for (int n = 1; n <= 16; n++) length += body[n];
        if (class > 1 || number > 1 || length > 16 + 256 || size < 1 + length) return OTHER;
        if (!make_table(image->tables, 2 * class + number, body + 1, length)) return OTHER;
        *known |= 1 << (2 * class + number);
        body += 1 + length, size -= 1 + length;
    }
    return DONE;
}

/* Components, MCUs and their blocks, from the frame header and the scan header; a status. */
static int lay_out(Image *image, int steps, int tables) {
    const Header *header = &image->header;
    const uint8_t *frame = image->data + header->frame + 10, *scan = image->data + header->sos + 5;
    image->components = (int32_t)header->components;
    image->most_vertical = image->most_across = 1;
    for (int n = 0; n < image->components; n++) {
        Component *one = &image->component[n];
        one->across = image->components > 1 ? frame[3 * n + 1] >> 4 : 1;
        one->vertical = image->components > 1 ? frame[3 * n + 1] & 15 : 1;
        one->quantization = frame[3 * n + 2];
        one->dc = scan[2 * n + 1] >> 4, one->ac = scan[2 * n + 1] & 15;
        if (scan[2 * n] != frame[3 * n] || one->quantization > 3 || one->dc > 1 || one->ac > 1) return OTHER;
        if (!(steps >> one->quantization & 1) || !(tables >> one->dc & 1) || !(tables >> (2 + one->ac) & 1))
            return OTHER;
        if (one->across > image->most_across) image->most_across = one->across;
        if (one->vertical > image->most_vertical) image->most_vertical = one->vertical;
    }
    int32_t high = 8 * image->most_vertical, wide = 8 * image->most_across;
    image->mcu_rows = (int32_t)((header->height + high - 1) / high);
    image->mcu_columns = (int32_t)((header->width + wide - 1) / wide);
    image->blocks = 0;
    for (int n = 0; n < image->components; n++) {
        Component *one = &image->component[n];
        if (image->most_vertical % one->vertical || image->most_across % one->across) return OTHER;
        int32_t vertical = image->most_vertical / one->vertical, across = image->most_across / one->across;
        one->high = (int32_t)((header->height + vertical - 1) / vertical);
        one->wide = (int32_t)((header->width + across - 1) / across);
        for (int place = 0; place < one->vertical * one->across; place++) {
            if (image->blocks == 10) return OTHER; /* the most that the standard allows */
            image->block[image->blocks++] = (Block){n,       place / one->across, place % one->across,
                                                    one->dc, 2 + one->ac,         image->steps[one->quantization]};
        }
    }
    /* A block takes two bits at least: memory is in proportion to the file. */
    int64_t blocks = (int64_t)image->mcu_rows * image->mcu_columns * image->blocks;
    return blocks > 4 * (image->size - header->scan) ? DAMAGED : DONE;
}

int open_image(Image *image, const uint8_t *data, int64_t size, Tables *tables) {
    Header *header = &image->header;
    if (size < 4 || data[0] != 0xFF || data[1] != 0xD8) return OTHER;
    parse_header(data, size, header);
    if (header->problem || (header->sof != 0xC0 && header->sof != 0xC1) || header->precision != 8) return OTHER;
    if (header->in_scan != header->components || (header->components != 1 && header->components != 3)) return OTHER;
    if (header->height * header->width > LARGEST) return OTHER;
    image->data = data, image->size = size, image->tables = tables;
    int known_steps = 0, known_tables = 0, status = DONE, jfif = 0, adobe = -1;
    Segment segment;
    for (int64_t at = 2;; at = segment.end) {
        next_segment(data, size, at, &segment);
        if (segment.start >= header->sos) break;
        const uint8_t *body = data + segment.start + 4;
        int64_t length = segment.end - segment.start - 4;
        if (segment.marker == DQT) status = read_steps(image, body, length, &known_steps);
        else if (segment.marker == DHT) status = read_tables(image, body, length, &known_tables);
        else if (segment.marker == APP0) jfif |= length >= 14 && !memcmp(body, "JFIF", 5);
        else if (segment.marker == APP14 && length >= 12 && !memcmp(body, "Adobe", 5)) adobe = body[11];
        if (status) return status;
    }
    if ((status = lay_out(image, known_steps, known_tables))) return status;
    const uint8_t *frame = data + header->frame + 10;
    int named_rgb = image->components == 3 && frame[0] == 'R' && frame[3] == 'G' && frame[6] == 'B';
    image->is_rgb = image->components == 3 && !jfif && (adobe == 0 || (adobe < 0 && named_rgb));
    return DONE;
}

int is_smooth(const Image *image, const Component *one) {
    int vertical = image->most_vertical / one->vertical, across = image->most_across / one->across;
    return vertical * across > 1 && vertical <= 2 && across <= 2 && (across == 1 || one->wide > 2);
}
