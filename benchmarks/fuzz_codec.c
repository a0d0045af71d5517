/* Mutated JPEGs for the codec's C functions, compiled with sanitizers; fuzz_codec.py builds and runs it.
 *
 *     fuzz SEEDS SEED FIRST END [FILE]
 *
 * SEEDS holds sound files, each behind its size, int64. Mutations FIRST to END are read; what a sanitizer or a check
 * finds ends the process. With FILE the first one is written there instead. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "pack.h"
#include "view.h"

enum { MOST_SEEDS = 256, GROWTH = 1 << 17, SIDE = 64, PIXELS = 1 << 16, MCUS = 1 << 14, MOST_TAKEN = 4096 };

int64_t decode_window(const uint8_t *data, int64_t size, const int64_t window[4], uint8_t *out);
int64_t window_intervals(const uint8_t *data, int64_t size, const int64_t window[4], Interval *found, int64_t most);

static void check(int holds, const char *law) {
    if (holds) return;
    fprintf(stderr, "not so: %s\n", law);
    abort();
}

/* In place of arena.c: every piece stands alone, so that the sanitizer sees where it ends, and holds `fill`, which no
 * result may depend on. The 64 bytes behind it are there to be read. */
static struct {
    uint8_t *bytes;
    size_t size;
    uint8_t fill;
} taken[MOST_TAKEN];
static int pieces;
static int64_t bytes_of_file;
static uint8_t fill;

void *take(Arena *arena, size_t size) {
    (void)arena;
    check(pieces < MOST_TAKEN && size < ((size_t)1 << 24) + 1024 * (size_t)bytes_of_file, "memory is in proportion");
    uint8_t *bytes = aligned_alloc(64, (size + 127) & ~(size_t)63);
    check(bytes != NULL, "there is memory");
    memset(bytes, fill, size + 64);
    taken[pieces].bytes = bytes, taken[pieces].size = size, taken[pieces++].fill = fill;
    return bytes;
}

void release(Arena *arena) {
    (void)arena;
    for (; pieces; pieces--) {
        const uint8_t *end = taken[pieces - 1].bytes + taken[pieces - 1].size;
        for (int n = 0; n < 64; n++) check(end[n] == taken[pieces - 1].fill, "nothing is written behind a piece");
        free(taken[pieces - 1].bytes);
    }
}

void reset(Arena *arena) { release(arena); }

Arena *own_arena(void) {
    static Arena arena;
    release(&arena);
    return &arena;
}

/* SplitMix64 (Steele et al., OOPSLA 2014). */
static uint64_t state;

static uint64_t draw(void) {
    uint64_t bits = state += 0x9E3779B97F4A7C15u;
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9u;
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EBu;
    return bits ^ bits >> 31;
}

static int64_t below(int64_t end) { return (int64_t)(draw() % (uint64_t)end); }

typedef struct {
    uint8_t *data;
    int64_t size, room;
} File;

/* `count` bytes in place of `removed` at `at`. */
static void splice(File *file, int64_t at, int64_t removed, const uint8_t *bytes, int64_t count) {
    if (at + removed > file->size || file->size - removed + count > file->room) return;
    memmove(file->data + at + count, file->data + at + removed, (size_t)(file->size - at - removed));
    if (count) memcpy(file->data + at, bytes, (size_t)count);
    file->size += count - removed;
}

/* As `splice`, of bytes of the file itself. */
static void copy(File *file, int64_t from, int64_t count, int64_t to, int64_t removed) {
    uint8_t *bytes = malloc((size_t)count + 1);
    memcpy(bytes, file->data + from, (size_t)count);
    splice(file, to, removed, bytes, count);
    free(bytes);
}

/* The header segments, as far as they are lawful; their number. */
static int list_segments(const File *file, Segment list[64]) {
    int count = 0;
    for (int64_t at = 2; count < 64; at = list[count++].end) {
        next_segment(file->data, file->size, at, &list[count]);
        if (!list[count].marker || list[count].end > file->size || list[count].end < list[count].start + 4) break;
        if (count && list[count - 1].marker == 0xDA) break;
    }
    return count;
}

static void change_segment(File *file) {
    static const uint8_t OFTEN[] = {0xC0, 0xC1, 0xC2, 0xC4, 0xD0, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE0, 0xEE, 0xFF};
    static const uint16_t WORDS[] = {0, 1, 2, 3, 7, 8, 16, 17, 64, 255, 256, 5000, 32768, 65535};
    Segment list[64];
    int count = list_segments(file, list);
    if (!count) return;
    Segment *one = &list[below(count)], *other = &list[below(count)];
    int64_t size = one->end - one->start, word = WORDS[below(14)];
    uint8_t *bytes = file->data + one->start;
    switch (below(9)) {
    case 0:
        bytes[1 + below(size - 1)] = (uint8_t)draw();
        break;
    case 1:
        bytes[2 + below(size - 2 < 20 ? size - 2 : 20)] = (uint8_t)draw();
        break;
    case 2:
        bytes[1] = OFTEN[below(sizeof OFTEN)];
        break;
    case 3:
        copy(file, one->start, size, other->start, 0);
        break; /* twice */
    case 4:
        copy(file, one->start, size, other->start, other->end - other->start);
        break; /* in place of another */
    case 5:
        splice(file, one->start, size, NULL, 0);
        break;
    case 6: {
        int64_t at = 2 + below(size - 3);
        bytes[at] = (uint8_t)(word >> 8), bytes[at + 1] = (uint8_t)word;
        break;
    }
    case 7: { /* another interval */
        uint8_t restart[] = {0xFF, 0xDD, 0, 4, (uint8_t)(word >> 8), (uint8_t)word};
        splice(file, one->start, one->marker == 0xDD ? size : 0, restart, 6);
        break;
    }
    default: /* sides and sampling of the frame */
        for (int n = 0; n < count; n++) {
            uint8_t *frame = file->data + list[n].start;
            if (list[n].marker < 0xC0 || list[n].marker > 0xC2 || list[n].end < list[n].start + 13) continue;
            int64_t side = below(4) ? 1 + below(100) : word;
            if (below(2)) frame[5 + 2 * below(2)] = (uint8_t)(side >> 8), frame[6 + 2 * below(2)] = (uint8_t)side;
            else if (list[n].start + 12 + 3 * frame[9] <= list[n].end + 4)
                frame[11 + 3 * below(frame[9] < 3 ? 1 : 3)] = (uint8_t)((1 + below(4)) << 4 | (1 + below(4)));
        }
    }
}

static void mutate(File *file) {
    for (int64_t left = 1 + below(4); left && file->size > 8; left--) {
        int64_t at = 2 + below(file->size - 2), size = 1 + below(40);
        if (size > file->size - at) size = file->size - at;
        uint8_t marker[] = {0xFF, below(2) ? (uint8_t)(0xD0 | below(8)) : (uint8_t)draw()};
        switch (below(12)) {
        case 0:
            file->data[at] = (uint8_t)draw();
            break;
        case 1:
            file->data[at] ^= (uint8_t)(1 << below(8));
            break;
        case 2:
            for (int64_t n = 0; n < size; n++) file->data[at + n] = (uint8_t)draw();
            break;
        case 3:
            splice(file, at, size, NULL, 0);
            break;
        case 4:
            copy(file, at, size, 2 + below(file->size - 2), 0);
            break;
        case 5:
            splice(file, at, below(2) && file->size - at > 2 ? 2 : 0, marker, 2);
            break;
        case 6:
            if (!below(4)) file->size = at;
            break;
        default:
            change_segment(file);
        }
    }
}

static Axis axis_of(int64_t length) {
    static const int64_t ODD[] = {INT64_MIN, -1, 0, 1, 2, 65535, 65536, 1 << 30, INT64_MAX};
    Axis axis = {.length = 1 + below(length)};
    axis.origin = below(length - axis.length + 1);
    axis.count = 1 + below(below(2) ? 20 : SIDE);
    axis.resized = axis.count + below(below(2) ? 4 : 200);
    axis.begin = below(axis.resized - axis.count + 1);
    axis.mirror = below(2);
    int64_t *fields[] = {&axis.origin, &axis.length, &axis.resized, &axis.begin, &axis.count};
    if (!below(8)) *fields[below(5)] = ODD[below(9)];
    return axis;
}

static int64_t limited(int64_t value) { return value < 1 ? 1 : value > SIDE ? SIDE : value; }

/* Some views in one call, twice, with other memory: the same pixels, and nothing outside a view is written. */
static void read_views(const uint8_t *data, int64_t size, int64_t height, int64_t width) {
    View views[3];
    uint8_t *pixels[2][3];
    int32_t statuses[2][3] = {{0}};
    int64_t rows[3], columns[3], watch[2], spent[2] = {0}, count = 1 + below(3);
    for (int n = 0; n < count; n++) {
        views[n] = (View){.data = data, .size = size, .vertical = axis_of(height), .horizontal = axis_of(width)};
        rows[n] = limited(views[n].vertical.count), columns[n] = limited(views[n].horizontal.count);
        views[n].stride = 3 * columns[n] + 6;
        if (rows[n] != views[n].vertical.count || columns[n] != views[n].horizontal.count)
            views[n].size = below(2); /* there is no room for so much */
    }
    for (int pass = 0; pass < 2; pass++) {
        for (int n = 0; n < count; n++) {
            size_t bytes = (size_t)(rows[n] * views[n].stride - 6);
            views[n].out = pixels[pass][n] = malloc(bytes);
            memset(pixels[pass][n], 77, bytes);
        }
        fill = pass ? 0xFF : 0;
        show_views(views, count, 5, statuses[pass], watch, spent);
    }
    for (int n = 0; n < count; n++) {
        int64_t stride = views[n].stride, bytes = rows[n] * stride - 6;
        int same = statuses[0][n] == statuses[1][n] && !memcmp(pixels[0][n], pixels[1][n], (size_t)bytes);
        check(same, "a view does not depend on what memory holds");
        for (int64_t at = 0; at < bytes; at++)
            if (statuses[0][n] || at % stride >= 3 * columns[n])
                check(pixels[0][n][at] == 77, "nothing else is written");
        free(pixels[0][n]), free(pixels[1][n]);
    }
}

/* The pixels of a window, or NULL. */
static uint8_t *window_of(const uint8_t *data, int64_t size, const int64_t window[4]) {
    int64_t statuses[2], bytes = 3 * window[2] * window[3];
    uint8_t *pixels[2];
    for (int pass = 0; pass < 2; pass++) {
        fill = pass ? 0xFF : 0;
        pixels[pass] = calloc((size_t)bytes, 1);
        statuses[pass] = decode_window(data, size, window, pixels[pass]);
    }
    check(statuses[0] == statuses[1] && !memcmp(pixels[0], pixels[1], (size_t)bytes), "nor does a window");
    free(pixels[1]);
    if (!statuses[0]) return pixels[0];
    free(pixels[0]);
    return NULL;
}

static void read_windows(const uint8_t *data, int64_t size, int64_t height, int64_t width) {
    for (int n = 0; n < 3; n++) {
        int64_t window[4] = {below(height), below(width)};
        window[2] = 1 + below(height - window[0]), window[3] = 1 + below(width - window[1]);
        if (window[2] * window[3] > PIXELS) window[2] = window[3] = 1;
        if (!n && height * width <= PIXELS) memcpy(window, (int64_t[]){0, 0, height, width}, sizeof window);
        free(window_of(data, size, window));
        fill = 0;
        int64_t most = n ? size : below(9);
        Interval *found = malloc(sizeof *found * (size_t)(most + 1));
        int64_t count = window_intervals(data, size, window, found, most);
        check(count <= most, "as many intervals as there is room for");
        for (int64_t k = 0; k < count; k++)
            check(found[k].from >= 0 && found[k].to <= size && found[k].from <= found[k].to && found[k].first >= 0 &&
                      found[k].first < found[k].last,
                  "intervals lie in the file");
        free(found);
        window[below(4)] += below(2) ? 65536 : -65536;
        uint8_t none;
        check(decode_window(data, size, window, &none) != 0, "no window beyond the image");
        check(window_intervals(data, size, window, NULL, 0) < 0, "nor its intervals");
    }
}

/* As tiles.py does it; what was packed is read back, and decodes to the same pixels. */
static void pack(const uint8_t *data, int64_t size, int64_t height, int64_t width) {
    Frame frame;
    if (pack_frame(data, size, &frame)) return;
    int64_t mcus = frame.rows * frame.columns, interval = 1 + below(below(2) ? 4 : mcus < 65535 ? mcus : 65535);
    if (mcus > MCUS) return;
    int64_t most = 8 * size < 64 * frame.blocks * mcus ? 8 * size : 64 * frame.blocks * mcus;
    uint32_t *symbols = malloc(sizeof *symbols * (size_t)(most + mcus + ROOM));
    uint8_t *clean = malloc((size_t)size + ROOM);
    int64_t *results = malloc(sizeof *results * (3 + 4 * 256));
    if (!pack_walk(data, size, &frame, interval, clean, symbols, results) && can_be_cut(&frame.header)) {
        uint8_t *out = malloc((size_t)(size + 8 * results[0] + ROOM));
        int64_t written = pack_write(data, size, &frame, interval, symbols, results[0], results + 3, out);
        uint8_t *exact = malloc((size_t)written), *other = malloc((size_t)written + ROOM);
        memcpy(exact, out, (size_t)written);
        if (!frame.header.stray)
            check(pack_compare(data, size, exact, written, interval, symbols, results[0], other) == 1,
                  "it is read back");
        int64_t window[4] = {0, 0, height, width}, bytes = 3 * height * width;
        uint8_t *one = bytes < 3 * PIXELS ? window_of(data, size, window) : NULL;
        uint8_t *two = one ? window_of(exact, written, window) : NULL;
        check(!one || (two && !memcmp(one, two, (size_t)bytes)), "packed, it has the same pixels");
        free(one), free(two);
        exact[below(written)] ^= (uint8_t)(1 << below(8));
        pack_compare(data, size, exact, written, interval, symbols, results[0], other);
        free(out), free(exact), free(other);
    }
    free(symbols), free(clean), free(results);
}

static void read_all(const uint8_t *data, int64_t size) {
    Segment segment = {0};
    for (int64_t at = 0, count = 0; at < size && count < 500; at = segment.end, count++) {
        next_segment(data, size, at, &segment);
        check(segment.start >= at && segment.start <= size && segment.end >= segment.start,
              "segments follow one another");
        if (segment.end <= at) break;
    }
    if (size < 2 || data[0] != 0xFF || data[1] != 0xD8) return;
    Header header;
    parse_header(data, size, &header);
    int64_t height = header.problem ? 40 : header.height, width = header.problem ? 40 : header.width;
    read_views(data, size, height, width);
    read_windows(data, size, height, width);
    pack(data, size, height, width);
}

static void pad(void) {
    PaddedWindow window = {1 + below(9), 1 + below(9), below(30) - 15, below(30) - 15, 1 + below(12), below(2)};
    uint8_t *pixels = calloc((size_t)(window.height * window.width), 3);
    uint8_t *out = malloc((size_t)(3 * window.side * window.side));
    padded_window(pixels, &window, out);
    free(pixels), free(out);
}

int main(int count, char **words) {
    static File seeds[MOST_SEEDS];
    int64_t number = 0, mutation, size;
    if (count < 5) return 2;
    FILE *from = fopen(words[1], "rb");
    for (; from && number < MOST_SEEDS && fread(&size, 8, 1, from); number++) {
        seeds[number] = (File){malloc((size_t)size), size, size};
        check(fread(seeds[number].data, 1, (size_t)size, from) == (size_t)size, "seeds are whole");
    }
    if (!number) return 2;
    fclose(from);
    for (mutation = atoll(words[3]); mutation < atoll(words[4]); mutation++) {
        state = (uint64_t)atoll(words[2]) << 40 ^ (uint64_t)mutation;
        state = draw();
        const File *seed = &seeds[below(number)];
        File file = {malloc((size_t)(seed->size + GROWTH)), seed->size, seed->size + GROWTH};
        memcpy(file.data, seed->data, (size_t)seed->size);
        if (mutation >= number) mutate(&file); /* the first are the seeds themselves */
        uint8_t *exact = malloc((size_t)file.size);
        memcpy(exact, file.data, (size_t)file.size);
        if (count > 5) {
            FILE *to = fopen(words[5], "wb");
            return !to || fwrite(exact, 1, (size_t)file.size, to) != (size_t)file.size || fclose(to);
        }
        fprintf(stderr, "mutation %lld\n", (long long)mutation);
        bytes_of_file = file.size;
        read_all(exact, file.size);
        release(NULL);
        pad();
        free(exact), free(file.data);
    }
    for (int64_t n = 0; n < number; n++) free(seeds[n].data);
    return 0;
}
