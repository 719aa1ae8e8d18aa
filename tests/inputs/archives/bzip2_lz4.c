/* Packs and restores text and noise with bzip2 and lz4 (fast, HC, frames); prints sizes and
 * checksums. argv[1] is the seed of the data. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bzlib.h"
#include "lz4.h"
#include "lz4frame.h"
#include "lz4hc.h"
#include "xxhash.h"

enum { SIZE = 1 << 20, ROOM = SIZE + SIZE / 50 + 4096 };

static uint64_t state;
static char data[SIZE], packed[ROOM], restored[SIZE];

static unsigned next_random(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (unsigned)(state >> 33);
}

static unsigned long checksum(const char *bytes, size_t size)
{
    return XXH32(bytes, size, 1);
}

static int report(const char *what, size_t size, int ok)
{
    printf("%s: %zu bytes, %08lx, %s\n", what, size, checksum(packed, size), ok ? "restored" : "LOST");
    memset(restored, 0, SIZE);
    return !ok;
}

static int same(void)
{
    return memcmp(data, restored, SIZE) == 0;
}

static int bzip2(int level)
{
    char name[32];
    unsigned size = ROOM, back = SIZE;
    int packs = BZ2_bzBuffToBuffCompress(packed, &size, data, SIZE, level, 0, 0);
    int unpacks = BZ2_bzBuffToBuffDecompress(restored, &back, packed, size, 0, level & 1);
    snprintf(name, sizeof name, "bzip2 -%d %s", level, BZ2_bzlibVersion());
    return report(name, size, packs == BZ_OK && unpacks == BZ_OK && back == SIZE && same());
}

static int lz4(int level)
{
    char name[32];
    int size = level ? LZ4_compress_HC(data, packed, SIZE, ROOM, level) : LZ4_compress_default(data, packed, SIZE, ROOM);
    int back = LZ4_decompress_safe(packed, restored, size, SIZE);
    snprintf(name, sizeof name, "lz4 %d %s", level, LZ4_versionString());
    return report(name, (size_t)size, back == SIZE && same());
}

static int frame(void)
{
    LZ4F_preferences_t options = { .frameInfo = { .contentChecksumFlag = LZ4F_contentChecksumEnabled } };
    size_t size = LZ4F_compressFrame(packed, ROOM, data, SIZE, &options), back = SIZE, used = size;
    LZ4F_dctx *context = NULL;
    int made = !LZ4F_isError(LZ4F_createDecompressionContext(&context, LZ4F_VERSION));
    size_t left = LZ4F_decompress(context, restored, &back, packed, &used, NULL);
    LZ4F_freeDecompressionContext(context);
    return report("lz4 frame", size, made && left == 0 && back == SIZE && same());
}

int main(int argc, char **argv)
{
    int lost = 0;
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : 1;
    for (int kind = 0; kind < 2; kind++) {
        for (int i = 0; i < SIZE; i++) {
            unsigned r = next_random();
            data[i] = (char)(kind ? r >> 8 : "etaoin shrdlu\n"[(r & r >> 7 & 15) % 14]);
        }
        lost += bzip2(1) + bzip2(9) + lz4(0) + lz4(4) + lz4(12) + frame();
    }
    return lost;
}
