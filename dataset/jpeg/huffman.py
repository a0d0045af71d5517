"""The entropy-coded segment of a sequential JPEG, taken apart into symbols and written again; compiled loops.

ITU-T T.81 (the JPEG standard) is cited by section: C and F for Huffman codes, K.2 for making them. Four Huffman tables
count as 0: DC 0, 1: AC 0, 2: DC 1, 3: AC 1. A symbol is an uint32, `table << 24 | symbol << 16 | extra bits`; RESTART
stands for a restart marker.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from dataset.jpeg.header import BadImage

RESTART = np.uint32(0xFFFFFFFF)
_LOOK = 9  # bits that the first lookup decides; longer codes are rare
_LONG = 34  # where the values begin in a row of long codes
_SLACK = 8192  # bytes and symbols that a damaged MCU may read too far
_HARMLESS = 2  # bytes that an interval may hold beyond its blocks: encoders pad so; more are lost synchronisation
_LARGEST = 2 * 1280  # twice a coefficient less half a step, for rounding; samples of 8 bits give 1024 at most

_NO_CODE, _TOO_MANY, _TOO_LARGE, _TOO_SHORT, _LEFT_OVER, _NO_RESTART = range(1, 7)
_PROBLEMS = {
    _NO_CODE: "a code that its Huffman tables lack",
    _TOO_MANY: "a block of more than 64 coefficients",
    _TOO_LARGE: "coefficients that no pixels have",
    _TOO_SHORT: "its entropy-coded data end too early",
    _LEFT_OVER: "unread bytes after its entropy-coded data",
    _NO_RESTART: "its restart markers are missing or out of order",
}


def decoders(tables: dict[int, bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Lookups of Huffman tables given by `class << 4 | id`, as 16 counts by length and the values.

    Returns:
        lookup: uint16 [4, 512], `length << 8 | symbol` by the next 9 bits; 0 where the code is longer.
        long_codes: int64 [4, 34 + 256]: one past the largest code of each length 1 to 16 (from column 1), what to add
            to a code of that length to find its value (from column 18), the values.
    """
    lookup, long_codes = np.zeros((4, 1 << _LOOK), np.uint16), np.zeros((4, _LONG + 256), np.int64)
    for identity, table in tables.items():
        row = (identity & 1) * 2 + (identity >> 4)
        _fill_decoder(np.frombuffer(table, np.uint8), lookup[row], long_codes[row])
    return lookup, long_codes


@njit("void(Array(uint8, 1, 'C', readonly=True), uint16[::1], int64[::1])", cache=True, nogil=True)
def _fill_decoder(table: np.ndarray, lookup: np.ndarray, long_codes: np.ndarray) -> None:
    """T.81 C.2: the codes of each length are consecutive."""
    code, value = 0, 0
    for length in range(1, 17):
        long_codes[17 + length] = value - code
        for _ in range(table[length - 1]):
            symbol = table[16 + value]
            long_codes[_LONG + value] = symbol
            if length <= _LOOK:
                first = code << (_LOOK - length)
                for entry in range(first, min(first + (1 << (_LOOK - length)), 1 << _LOOK)):
                    lookup[entry] = length << 8 | symbol
            code += 1
            value += 1
        long_codes[length] = code
        code <<= 1


@njit("UniTuple(int64, 2)(Array(uint8, 1, 'C', readonly=True), int64, uint32[::1])", cache=True, nogil=True)
def _unstuff(data: np.ndarray, position: int, words: np.ndarray) -> tuple[int, int]:
    """Copy entropy-coded bytes up to a marker, FF 00 as FF, as big-endian words; the marker's position, their count."""
    count = 0
    word = np.uint32(0)
    end = len(data)
    while position < end:
        byte = data[position]
        if byte == 0xFF:
            after = position + 1
            while after < end and data[after] == 0xFF:  # fill bytes
                after += 1
            if after == end or data[after] != 0:
                break
            position = after
        position += 1
        word = word << np.uint32(8) | np.uint32(byte)
        count += 1
        if count & 3 == 0:
            words[(count >> 2) - 1] = word
    words[count >> 2] = word << np.uint32(8 * (4 - (count & 3)) & 31)
    words[(count >> 2) + 1] = 0
    return position, count


def read_symbols(
    data: bytes,
    position: int,
    blocks: np.ndarray,
    quantization: np.ndarray,
    mcus: int,
    restarts: tuple[int, int],
    decoder: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Decode the scan at ``position`` to symbols, DC differences counted from new restarts.

    Args:
        data: the JPEG.
        position: of the first entropy-coded byte.
        blocks: int64 [blocks of an MCU, 3]: component, DC table, AC table.
        quantization: int64 [components, 64]: steps in zigzag order.
        mcus: how many the scan has.
        restarts: MCUs between restart markers, 0 for none: those of the scan, those of the result.
        decoder: what `decoders` returned.

    Returns:
        symbols: uint32.
        counts: int64 [4, 256], how often each occurs.
        position: of the marker behind the scan; the end of ``data`` where there is none.
        unread: bytes left over at the end of intervals, at most `_HARMLESS` in each.

    Raises:
        BadImage: the scan is damaged.
    """
    # A symbol takes a bit at least, a block 64 symbols at most.
    symbols = np.empty(min(8 * len(data), 64 * len(blocks) * mcus) + mcus + _SLACK, np.uint32)
    counts = np.zeros((4, 256), np.int64)
    clean = np.zeros(-(-(len(data) + _SLACK) // 8) * 8, np.uint8)
    number, end, unread, problem = _read_symbols(
        np.frombuffer(data, np.uint8),
        position,
        blocks,
        quantization,
        mcus,
        *restarts,
        *decoder,
        clean.view(np.uint32),
        symbols,
        counts,
    )
    if problem:
        raise BadImage(f"damaged JPEG: {_PROBLEMS[problem]}")
    return symbols[:number], counts, end, unread


@njit(
    "UniTuple(int64, 4)(Array(uint8, 1, 'C', readonly=True), int64, int64[:, ::1], int64[:, ::1], int64, int64, int64,"
    " uint16[:, ::1], int64[:, ::1], uint32[::1], uint32[::1], int64[:, ::1])",
    cache=True,
    nogil=True,
)
def _read_symbols(
    data: np.ndarray,
    position: int,
    blocks: np.ndarray,
    quantization: np.ndarray,
    mcus: int,
    restart_in: int,
    restart_out: int,
    lookup: np.ndarray,
    long_codes: np.ndarray,
    words: np.ndarray,
    symbols: np.ndarray,
    counts: np.ndarray,
) -> tuple[int, int, int, int]:
    before, after = np.zeros(4, np.int64), np.zeros(4, np.int64)  # DC predictions
    window, bits, word, available, number, all_unread = np.uint64(0), 0, 0, 0, 0, 0
    for mcu in range(mcus):
        if mcu and mcu % restart_out == 0:
            symbols[number] = RESTART
            number += 1
            after[:] = 0
        if mcu == 0 or (restart_in and mcu % restart_in == 0):
            if mcu:
                unread = available - (32 * word - bits + 7) // 8
                if unread > _HARMLESS:
                    return number, 0, 0, _LEFT_OVER
                all_unread += unread
                while position + 1 < len(data) and data[position + 1] == 0xFF:  # fill bytes
                    position += 1
                if position + 2 > len(data) or data[position + 1] != 0xD0 | (mcu // restart_in - 1) & 7:
                    return number, 0, 0, _NO_RESTART
                position += 2
            position, available = _unstuff(data, position, words)
            window, bits, word = np.uint64(words[0]) << np.uint64(32) | np.uint64(words[1]), 64, 2
            before[:] = 0
        for block in range(blocks.shape[0]):
            component, table = blocks[block, 0], blocks[block, 1]
            k = 0
            while k < 64:
                if bits < 32:
                    window |= np.uint64(words[word]) << np.uint64(32 - bits)
                    bits += 32
                    word += 1
                entry = np.int64(lookup[table, np.int64(window >> np.uint64(64 - _LOOK))])
                length, symbol = entry >> 8, entry & 255
                if length == 0:
                    length = _LOOK + 1
                    while length < 17 and np.int64(window >> np.uint64(64 - length)) >= long_codes[table, length]:
                        length += 1
                    if length == 17:
                        return number, 0, 0, _NO_CODE
                    code = np.int64(window >> np.uint64(64 - length))
                    symbol = long_codes[table, _LONG + ((code + long_codes[table, 17 + length]) & 255)]
                size = symbol & 15
                window <<= np.uint64(length)
                extra = np.int64(window >> np.uint64(1) >> np.uint64(63 - size))
                window <<= np.uint64(size)
                bits -= length + size
                if k:
                    run = symbol >> 4
                    if size:
                        k += run
                        if k > 63:
                            return number, 0, 0, _TOO_MANY
                        if quantization[component, k] * ((1 << size) - 1) > _LARGEST:
                            return number, 0, 0, _TOO_LARGE
                        k += 1
                    else:
                        k += 16 if run == 15 else 64  # any other run without a coefficient ends the block
                else:
                    k = 1
                    before[component] += extra if 2 * extra >> size else extra - (1 << size) + 1  # T.81 F.2.2.1
                    if (2 * abs(before[component]) - 1) * quantization[component, 0] > _LARGEST:
                        return number, 0, 0, _TOO_LARGE
                    difference = before[component] - after[component]
                    after[component] = before[component]
                    symbol = 0
                    while abs(difference) >> symbol:
                        symbol += 1
                    extra = difference if difference >= 0 else difference + (1 << symbol) - 1
                symbols[number] = np.uint32(table << 24 | symbol << 16 | extra)
                number += 1
                counts[table, symbol] += 1
                table = blocks[block, 2]
        if 32 * word - bits > 8 * available:
            return number, 0, 0, _TOO_SHORT
    unread = available - (32 * word - bits + 7) // 8
    if unread > _HARMLESS:
        return number, 0, 0, _LEFT_OVER
    while position + 1 < len(data) and data[position + 1] == 0xFF:  # fill bytes
        position += 1
    return number, position if position + 1 < len(data) else np.int64(len(data)), all_unread + unread, 0


@njit("Tuple((uint8[::1], uint8[::1]))(int64[::1], uint32[::1])", cache=True, nogil=True)
def optimal_code(counts: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Huffman code, at most 16 bits, for symbols seen ``counts`` times (T.81 K.2).

    Args:
        counts: [256].
        codes: uint32 [256], filled with `code << 8 | length` by symbol.

    Returns:
        Number of codes of each length 1 to 16, and the symbols in the order of their codes.
    """
    used = np.append(np.flatnonzero(counts), 256)  # 256 takes the code of ones alone, which JPEG forbids
    nodes = len(used)
    weight = np.ones(nodes, np.int64)
    weight[:-1] = counts[used[:-1]]
    size, follower, root = np.zeros(nodes, np.int64), np.full(nodes, -1), np.arange(nodes)
    alive = nodes
    while alive > 1:
        least, second = -1, -1  # positions in root of the two rarest
        for at in range(alive):
            if least < 0 or weight[root[at]] <= weight[root[least]]:
                least, second = at, least
            elif second < 0 or weight[root[at]] <= weight[root[second]]:
                second = at
        node, other = root[least], root[second]
        weight[node] += weight[other]
        size[node] += 1
        while follower[node] >= 0:
            node = follower[node]
            size[node] += 1
        follower[node] = other
        while other >= 0:
            size[other] += 1
            other = follower[other]
        alive -= 1
        root[second] = root[alive]
    lengths = np.bincount(size, minlength=nodes + 17)
    for length in range(nodes, 16, -1):  # K.2, figure K.3: shorten codes of more than 16 bits
        while lengths[length] > 0:
            shorter = length - 2
            while lengths[shorter] == 0:
                shorter -= 1
            lengths[length] -= 2
            lengths[length - 1] += 1
            lengths[shorter + 1] += 2
            lengths[shorter] -= 1
    longest = 16
    while lengths[longest] == 0:
        longest -= 1
    lengths[longest] -= 1  # the one kept free
    values = used[np.argsort(size[:-1] * 256 + used[:-1])].astype(np.uint8)
    code, at = 0, 0
    for length in range(1, 17):
        for _ in range(lengths[length]):
            codes[values[at]] = code << 8 | length
            code += 1
            at += 1
        code <<= 1
    return lengths[1:17].astype(np.uint8), values


def write_symbols(symbols: np.ndarray, codes: np.ndarray) -> bytes:
    """The entropy-coded bytes of ``symbols`` under ``codes``, uint32 [4, 256] of `code << 8 | length`."""
    out = np.empty(8 * len(symbols) + 64, np.uint8)  # a symbol takes 31 bits at most, and stuffing doubles bytes
    return out[: _write_symbols(symbols, codes.reshape(-1), out)].tobytes()


@njit("int64(uint32[::1], uint32[::1], uint8[::1])", cache=True, nogil=True)
def _write_symbols(symbols: np.ndarray, codes: np.ndarray, out: np.ndarray) -> int:
    window, bits, length, restarts = np.uint64(0), 0, 0, 0
    for at in range(len(symbols) + 1):
        symbol = symbols[at] if at < len(symbols) else RESTART
        if symbol != RESTART:
            entry = codes[symbol >> np.uint32(16)]
            size = np.int64(symbol >> np.uint32(16)) & 15
            window = window << np.uint64(entry & np.uint32(255)) | np.uint64(entry >> np.uint32(8))
            window = window << np.uint64(size) | np.uint64(symbol & np.uint32(0xFFFF))
            bits += np.int64(entry & np.uint32(255)) + size
            if bits < 32:
                continue
            bits -= 32
            word = np.uint32(window >> np.uint64(bits))
            if ~(word + np.uint32(0x01010101)) & word & np.uint32(0x80808080) == 0:  # no byte is FF
                out[length] = word >> np.uint32(24)
                out[length + 1] = word >> np.uint32(16) & np.uint32(255)
                out[length + 2] = word >> np.uint32(8) & np.uint32(255)
                out[length + 3] = word & np.uint32(255)
                length += 4
                continue
            bits += 32
        else:
            padding = -bits % 8
            window = window << np.uint64(padding) | np.uint64((1 << padding) - 1)
            bits += padding
        while bits >= 8:
            bits -= 8
            byte = np.uint8(window >> np.uint64(bits))
            out[length] = byte
            length += 1
            if byte == 0xFF:
                out[length] = 0
                length += 1
        if symbol == RESTART and at < len(symbols):
            out[length], out[length + 1] = 0xFF, 0xD0 | restarts & 7
            length += 2
            restarts += 1
    return length
