/* What the library says of itself, and the addresses of Python's objects. */

#include <stddef.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#include "codec.h"

/* SHA-256 of the sources, as sources.py computes it. */
const char *codec_sources(void) { return SOURCES; }

/* Whether the processor and the system have what x86-64-v3 asks for: AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE. */
int is_fast(void) {
#ifdef __x86_64__
    unsigned a, b, c, d, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C)) !=
                                               (bit_FMA | bit_MOVBE | bit_OSXSAVE | bit_AVX | bit_F16C))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    if ((low & 6) != 6) return 0; /* the system keeps the registers of AVX */
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) ||
        (b & (bit_AVX2 | bit_BMI | bit_BMI2)) != (bit_AVX2 | bit_BMI | bit_BMI2))
        return 0;
    return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & bit_LZCNT);
#else
    return 0;
#endif
}

/* Python's PyObject_GetBuffer and PyBuffer_Release, handed over by codec.py: the library is linked with no Python. */
static int (*get_buffer)(void *object, void *buffer, int flags);
static void (*release_buffer)(void *buffer);

void use_buffers(int (*get)(void *, void *, int), void (*release)(void *)) {
    get_buffer = get;
    release_buffer = release;
}

static void *address_of(void *object, int flags) {
    void *buffer[10]; /* a Py_buffer, which begins with the address */
    if (get_buffer(object, buffer, flags)) return NULL;
    release_buffer(buffer);
    return buffer[0];
}

/* Where the contiguous memory of a Python object lies; NULL beside an exception. They are called with the GIL held. */
void *readable(void *object) { return address_of(object, 0); }

void *writable(void *object) { return address_of(object, 1); } /* PyBUF_WRITABLE */
