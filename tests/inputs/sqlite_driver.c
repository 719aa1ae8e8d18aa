/* Runs SQL read from standard input against the database named by argv[1] (":memory:" if none),
 * one statement at a time, and prints each row as its values separated by '|'. Strings that hold
 * bytes other than text are printed in hex, NULL as (null). A failing statement prints its error
 * and the script goes on; the exit code is the number of failures. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sqlite3.h"

static char *read_all(FILE *in)
{
    size_t cap = 1 << 12, len = 0;
    char *text = malloc(cap);
    for (;;) {
        size_t got = fread(text + len, 1, cap - len - 1, in);
        if (got == 0)
            break;
        len += got;
        if (cap - len < 2) {
            cap *= 2;
            text = realloc(text, cap);
        }
    }
    text[len] = 0;
    return text;
}

/* A scalar function and an aggregate: SQLite calls back into this object. */
static void reverse_text(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    const unsigned char *in = sqlite3_value_text(argv[0]);
    int len = sqlite3_value_bytes(argv[0]);
    char *out = sqlite3_malloc(len + 1);
    for (int i = 0; i < len; i++)
        out[i] = (char)in[len - 1 - i];
    sqlite3_result_text(ctx, out, len, sqlite3_free);
}

static void product_step(sqlite3_context *ctx, int argc, sqlite3_value **argv)
{
    (void)argc;
    double *acc = sqlite3_aggregate_context(ctx, sizeof *acc);
    if (*acc == 0)
        *acc = 1;
    *acc *= sqlite3_value_double(argv[0]);
}

static void product_final(sqlite3_context *ctx)
{
    double *acc = sqlite3_aggregate_context(ctx, sizeof *acc);
    sqlite3_result_double(ctx, *acc);
}

static void print_row(sqlite3_stmt *stmt)
{
    for (int i = 0; i < sqlite3_column_count(stmt); i++) {
        if (i > 0)
            putchar('|');
        switch (sqlite3_column_type(stmt, i)) {
        case SQLITE_NULL:
            printf("(null)");
            break;
        case SQLITE_FLOAT:
            printf("%.15g", sqlite3_column_double(stmt, i));
            break;
        case SQLITE_BLOB: {
            const unsigned char *blob = sqlite3_column_blob(stmt, i);
            int len = sqlite3_column_bytes(stmt, i);
            printf("x'");
            for (int b = 0; b < len; b++)
                printf("%02x", blob[b]);
            printf("'");
            break;
        }
        default:
            printf("%s", (const char *)sqlite3_column_text(stmt, i));
        }
    }
    putchar('\n');
}

int main(int argc, char **argv)
{
    sqlite3 *db;
    int failures = 0;
    if (sqlite3_open(argc > 1 ? argv[1] : ":memory:", &db) != SQLITE_OK) {
        fprintf(stderr, "open: %s\n", sqlite3_errmsg(db));
        return 100;
    }
    sqlite3_create_function(db, "reverse_text", 1, SQLITE_UTF8, 0, reverse_text, 0, 0);
    sqlite3_create_function(db, "product", 1, SQLITE_UTF8, 0, 0, product_step, product_final);
    printf("sqlite %s\n", sqlite3_libversion());

    char *sql = read_all(stdin);
    const char *rest = sql;
    while (*rest) {
        sqlite3_stmt *stmt;
        const char *start = rest;
        if (sqlite3_prepare_v2(db, rest, -1, &stmt, &rest) != SQLITE_OK) {
            printf("error: %s\n", sqlite3_errmsg(db));
            failures++;
            /* The tail of a statement that does not compile is where its error was. */
            const char *end = strchr(start, ';');
            rest = end ? end + 1 : start + strlen(start);
            continue;
        }
        if (stmt == NULL)
            continue;
        int code;
        while ((code = sqlite3_step(stmt)) == SQLITE_ROW)
            print_row(stmt);
        if (code != SQLITE_DONE) {
            printf("error: %s\n", sqlite3_errmsg(db));
            failures++;
        }
        sqlite3_finalize(stmt);
    }
    free(sql);
    if (sqlite3_close(db) != SQLITE_OK)
        return 101;
    return failures;
}
