/* Debian's libz.a: packs and restores, by blocks and through a file. */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

static unsigned char text[200000], packed[210000], back[200000];

int main(int argc, char **argv)
{
    uLong size = sizeof packed, length = sizeof back;
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (unsigned char)("low memory "[i % 11] + (i / 997) % 3);
    int packs = compress2(packed, &size, text, sizeof text, 9);
    int unpacks = uncompress(back, &length, packed, size);
    printf("%d %d %lu %08lx %d\n", packs, unpacks, size, crc32(0, packed, (uInt)size), memcmp(text, back, sizeof text));
    if (argc > 1) {
        gzFile file = gzopen(argv[1], "wb6");
        gzprintf(file, "%d lines\n", 3);
        gzwrite(file, text, sizeof text);
        gzclose(file);
        file = gzopen(argv[1], "rb");
        char line[32] = "";
        gzgets(file, line, sizeof line);
        int got = gzread(file, back, sizeof back);
        printf("%s%d %d %08lx\n", line, got, gzclose(file), adler32(1, back, (uInt)got));
    }
    return 0;
}
