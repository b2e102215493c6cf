"""The letters in which byte-level BPE spells bytes."""


def byte_letters() -> dict[str, int]:
    """The letter byte-level BPE writes for each byte, to the byte.

    Printable Latin-1 bytes stand for themselves; the other 68 take the letters from U+0100 on.

    **Source**: the ByteLevel decoder of the tokenizers library (GPT-2's table).
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    letters = {chr(byte): byte for byte in printable}
    hidden = [byte for byte in range(256) if byte not in printable]
    letters.update({chr(0x100 + index): byte for index, byte in enumerate(hidden)})
    return letters
