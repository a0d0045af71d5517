/* What the parts of the JPEG codec share. Markers and segments are those of ITU-T T.81, annex B. */

#ifndef LIMBECK_CODEC_H
#define LIMBECK_CODEC_H

#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* A piece of the headers: the bytes from its marker, FF, to its end. */
typedef struct {
    int64_t marker; /* 0 where there is none */
    int64_t start;
    int64_t end;
    int64_t stray; /* bytes before it that belong to no segment */
} Segment;

/* The contents of the headers. */
typedef struct {
    int64_t problem; /* 0, or a key of header.py's _PROBLEMS; the rest holds only without one */
    int64_t sof;     /* marker of the frame header */
    int64_t frame;   /* its position */
    int64_t precision;
    int64_t height;
    int64_t width;
    int64_t components;
    int64_t factors; /* horizontal << 4 | vertical, a byte a component, the first one lowest */
    int64_t sos;     /* position of the first scan's header */
    int64_t scan;    /* of the first entropy-coded byte */
    int64_t in_scan; /* components of the first scan */
    int64_t restart; /* MCUs between restart markers, 0 for none */
    int64_t stray;   /* bytes that belong to no segment */
} Header;

const char *codec_sources(void);
int is_fast(void);
void use_buffers(int (*get)(void *, void *, int), void (*release)(void *));
void *readable(void *object);
void *writable(void *object);

/* Natural order of the coefficients in zigzag order, figure A.6. */
extern const uint8_t ZIGZAG[64];

INLINE uint64_t load_big(const uint8_t *data) {
    uint64_t word;
    memcpy(&word, data, 8);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* Bytes from `position` up to a marker or `size`, FF 00 as FF, into `out`; the position of the marker. */
int64_t unstuff(const uint8_t *data, int64_t size, int64_t position, uint8_t *out, int64_t *count);

void next_segment(const uint8_t *data, int64_t size, int64_t position, Segment *segment);
void parse_header(const uint8_t *data, int64_t size, Header *header);

/* Pixels of an MCU; a scan of one component counts in single blocks. */
typedef struct {
    int64_t height;
    int64_t width;
} Mcu;

INLINE Mcu mcu_of(const Header *header) {
    int64_t high = 1, wide = 1;
    for (int64_t component = 0; header->components > 1 && component < header->components; component++) {
        int64_t factor = header->factors >> 8 * component & 255;
        high = (factor & 15) > high ? factor & 15 : high;
        wide = factor >> 4 > wide ? factor >> 4 : wide;
    }
    return (Mcu){8 * high, 8 * wide};
}

/* Whether the first scan is the whole image, of 8 bits, sequential and Huffman coded. */
INLINE int is_interleaved(const Header *header) {
    int sequential = header->sof == 0xC0 || header->sof == 0xC1;
    return sequential && header->precision == 8 && header->in_scan == header->components;
}

/* Whether windows can be cut out between restart markers: one sequential Huffman scan, gray or three components. */
INLINE int can_be_cut(const Header *header) {
    return is_interleaved(header) && (header->components == 1 || header->components == 3);
}

/* A window of an image, which may reach beyond it. */
typedef struct {
    int64_t height; /* of the image */
    int64_t width;
    int64_t top; /* of the window */
    int64_t left;
    int64_t side;
    int64_t mirror; /* 1 for left to right */
} PaddedWindow;

void padded_window(const uint8_t *pixels, const PaddedWindow *window, uint8_t *out);

#endif
