/* Memory that is used again for every image of a call, for fresh memory costs a page fault every 4 KiB. */

#ifndef LIMBECK_ARENA_H
#define LIMBECK_ARENA_H

#include <stddef.h>
#include <stdint.h>

enum { CHUNKS = 16 };

/* Chunks, the last of which is in use; all zero at the beginning. */
typedef struct {
    uint8_t *chunk[CHUNKS];
    size_t size[CHUNKS], used;
    int chunks;
} Arena;

/* `size` bytes, at a multiple of 64 and readable for 64 more; NULL where memory is short. */
void *take(Arena *arena, size_t size);

/* Everything that was taken is free again, in one chunk; what is large is given back. */
void reset(Arena *arena);

/* That of this thread, reset; NULL where memory is short. It ends with the thread. */
Arena *own_arena(void);

void release(Arena *arena);

#endif
