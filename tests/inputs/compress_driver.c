/* Compresses and restores data of several kinds with zlib and zstd, at several levels, and prints
 * a checksum of everything produced: equal output means equal compressed bytes. argv[1] is the
 * seed of the data. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zlib.h"
#include "zstd.h"

static uint64_t state;

static uint64_t next_random(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

enum { SIZE = 3 << 20 };

typedef void generator(unsigned char *);

static void zeros(unsigned char *data)
{
    memset(data, 0, SIZE);
}

static void noise(unsigned char *data)
{
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (unsigned char)next_random();
}

/* Words of a small vocabulary, rarer the longer. */
static void prose(unsigned char *data)
{
    static const char *const words[] = {"the ", "of ", "section ", "symbol ", "low ", "memory ",
        "is ", "a ", "relocation ", "placed ", "at ", "random ", "address ", "below ", "two ", "gibibytes. "};
    size_t at = 0;
    while (at < SIZE) {
        const char *word = words[(next_random() & next_random()) % 16];
        size_t len = strlen(word);
        if (len > SIZE - at)
            len = SIZE - at;
        memcpy(data + at, word, len);
        at += len;
    }
}

/* Records with slowly growing fields, as tables have. */
static void records(unsigned char *data)
{
    uint32_t row[4] = {0};
    for (size_t at = 0; at + sizeof row <= SIZE; at += sizeof row) {
        row[0]++;
        row[1] += (uint32_t)(next_random() & 15);
        row[2] ^= 1u << (next_random() & 31);
        memcpy(data + at, row, sizeof row);
    }
}

static const struct {
    const char *name;
    generator *fill;
} kinds[] = {{"zeros", zeros}, {"noise", noise}, {"prose", prose}, {"records", records}};

static uint64_t fnv(const unsigned char *data, size_t len)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < len; i++)
        hash = (hash ^ data[i]) * 0x100000001b3u;
    return hash;
}

static int failures;

static void report(const char *codec, const char *kind, int level, const unsigned char *packed,
                   size_t packed_len, const unsigned char *data, const unsigned char *back, size_t back_len)
{
    int same = back_len == SIZE && memcmp(data, back, SIZE) == 0;
    failures += !same;
    printf("%s %s level %d: %zu bytes %016llx, %s\n", codec, kind, level, packed_len,
           (unsigned long long)fnv(packed, packed_len), same ? "restored" : "DAMAGED");
}

static void with_zlib(const char *kind, int level, const unsigned char *data, unsigned char *packed,
                      size_t room, unsigned char *back)
{
    uLongf packed_len = room, back_len = SIZE;
    int packing = compress2(packed, &packed_len, data, SIZE, level);
    memset(back, 0xa5, SIZE);
    int unpacking = uncompress(back, &back_len, packed, packed_len);
    if (packing != Z_OK || unpacking != Z_OK)
        printf("zlib codes %d %d\n", packing, unpacking);
    report("zlib", kind, level, packed, packed_len, data, back, back_len);
}

static void with_zstd(const char *kind, int level, int workers, const unsigned char *data,
                      unsigned char *packed, size_t room, unsigned char *back)
{
    ZSTD_CCtx *ctx = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_compressionLevel, level);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_checksumFlag, 1);
    ZSTD_CCtx_setParameter(ctx, ZSTD_c_nbWorkers, workers);
    size_t packed_len = ZSTD_compress2(ctx, packed, room, data, SIZE);
    ZSTD_freeCCtx(ctx);
    if (ZSTD_isError(packed_len)) {
        printf("zstd: %s\n", ZSTD_getErrorName(packed_len));
        failures++;
        return;
    }
    memset(back, 0xa5, SIZE);
    size_t back_len = ZSTD_decompress(back, SIZE, packed, packed_len);
    report(workers ? "zstd with threads" : "zstd", kind, level, packed, packed_len, data, back, back_len);
}

int main(int argc, char **argv)
{
    state = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    printf("zlib %s, zstd %s, seed %llu\n", zlibVersion(), ZSTD_versionString(), (unsigned long long)state);
    size_t room = ZSTD_compressBound(SIZE) + compressBound(SIZE);
    unsigned char *data = malloc(SIZE), *back = malloc(SIZE), *packed = malloc(room);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        memset(data, 0, SIZE);
        kinds[k].fill(data);
        with_zlib(kinds[k].name, 1, data, packed, room, back);
        with_zlib(kinds[k].name, 6, data, packed, room, back);
        with_zstd(kinds[k].name, 1, 0, data, packed, room, back);
        with_zstd(kinds[k].name, 5, 2, data, packed, room, back);
        with_zstd(kinds[k].name, 12, 0, data, packed, room, back);
        /* Damage must be found, not followed. */
        packed[40] ^= 0x55;
        size_t damaged = ZSTD_decompress(back, SIZE, packed, room);
        printf("damaged: %s\n", ZSTD_isError(damaged) ? ZSTD_getErrorName(damaged) : "not seen");
    }
    free(data);
    free(back);
    free(packed);
    return failures;
}
