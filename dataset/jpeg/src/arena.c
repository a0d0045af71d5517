#include "arena.h"

#include <pthread.h>
#include <stdlib.h>

enum { KEPT = 1 << 24 }; /* bytes, between calls */

static uint8_t *add(Arena *arena, size_t size) {
    void *bytes;
    if (arena->chunks == CHUNKS || posix_memalign(&bytes, 64, size)) return NULL;
    arena->size[arena->chunks] = size;
    arena->used = 0;
    return arena->chunk[arena->chunks++] = bytes;
}

void *take(Arena *arena, size_t size) {
    size_t needed = (size + 127) & ~(size_t)63;
    if (needed < size) return NULL;
    if (!arena->chunks || arena->used + needed > arena->size[arena->chunks - 1]) {
        size_t before = arena->chunks ? arena->size[arena->chunks - 1] : 1 << 19;
        if (!add(arena, needed > 2 * before ? needed : 2 * before)) return NULL;
    }
    uint8_t *bytes = arena->chunk[arena->chunks - 1] + arena->used;
    arena->used += needed;
    return bytes;
}

void reset(Arena *arena) {
    size_t total = 0;
    for (int n = 0; n < arena->chunks; n++) total += arena->size[n];
    if (arena->chunks > 1 || total > KEPT) {
        release(arena);
        if (total <= KEPT) add(arena, total);
    }
    arena->used = 0;
}

void release(Arena *arena) {
    while (arena->chunks) free(arena->chunk[--arena->chunks]);
}

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void end(void *arena) {
    release(arena);
    free(arena);
}

static void begin(void) { pthread_key_create(&key, end); }

Arena *own_arena(void) {
    pthread_once(&once, begin);
    Arena *arena = pthread_getspecific(key);
    if (!arena && (arena = calloc(1, sizeof *arena))) pthread_setspecific(key, arena);
    if (arena) reset(arena);
    return arena;
}
