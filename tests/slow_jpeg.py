"""The coefficients of a sequential JPEG with one scan, read slowly and plainly from ITU-T T.81."""

from dataset.jpeg.header import DHT, jpeg_header, segments


def slow_coefficients(data: bytes) -> list[list[int]]:
    """The 64 quantized coefficients of each block in the order of the scan, in zigzag order, DC as it is."""
    header = jpeg_header(data)
    tables = dict(pair for marker, segment in segments(data, header) if marker == DHT for pair in _tables(segment[4:]))
    factors = header.factors.to_bytes(4, "little")[: header.components] if header.components > 1 else b"\x11"
    scan = data[header.sos + 5 : header.scan]
    mcu = [number for number, factor in enumerate(factors) for _ in range((factor >> 4) * (factor & 15))]
    high, wide = header.mcu
    mcus = -(-header.height // high) * -(-header.width // wide)
    blocks: list[list[int]] = []
    for start, bits in zip(range(0, mcus, header.restart or mcus), _intervals(data[header.scan :])):
        before, at = [0] * header.components, iter(bits)
        for number in mcu * min(header.restart or mcus, mcus - start):
            dc, ac = tables[scan[2 * number + 1] >> 4], tables[0x10 | scan[2 * number + 1] & 15]
            before[number] += _value(at, _symbol(at, dc))
            block = [before[number]]
            while len(block) < 64 and (symbol := _symbol(at, ac)):
                block += [0] * (symbol >> 4) + [_value(at, symbol & 15)]
            blocks.append(block + [0] * (64 - len(block)))
        assert set(at) <= {"1"}
    return blocks


def _tables(body: bytes):
    """C.2: a dictionary from codes, as strings, to symbols for each table."""
    while body:
        code, values, words = 0, iter(body[17:]), {}
        for length in range(1, 17):
            for _ in range(body[length]):
                words[f"{code:0{length}b}"] = next(values)
                code += 1
            code <<= 1
        yield body[0], words
        body = body[17 + sum(body[1:17]) :]


def _intervals(scan: bytes):
    """The bits of each restart interval, as strings; the markers must be in turn."""
    number = 0
    while True:
        end = next(at for at in range(len(scan)) if scan[at] == 0xFF and scan[at + 1] not in (0, 0xFF))
        part = scan[:end].rstrip(b"\xff") if scan[end - 1 : end] == b"\xff" else scan[:end]
        yield "".join(f"{byte:08b}" for byte in part.replace(b"\xff\0", b"\xff"))
        if scan[end + 1] == 0xD9:
            return
        assert scan[end + 1] == 0xD0 | number & 7
        scan, number = scan[end + 2 :], number + 1


def _symbol(bits, table: dict[str, int]) -> int:
    word = ""
    while word not in table:
        word += next(bits)
    return table[word]


def _value(bits, size: int) -> int:
    """F.2.2.1."""
    extra = "".join(next(bits) for _ in range(size))
    return int(extra or "0", 2) - (0 if extra.startswith("1") or not extra else (1 << size) - 1)
