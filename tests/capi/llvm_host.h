/* What the LLVM test programs share: the functions that the module calls, and looks at its memory. */
#ifndef LLVM_HOST_H
#define LLVM_HOST_H

#include "check.h"

#include <llvm-c/BitReader.h>
#include <llvm-c/Core.h>
#include <llvm-c/ExecutionEngine.h>
#include <llvm-c/Target.h>
#include <unwind.h>

static int host_call(int (*back)(int), int n)
{
    CHECK((uintptr_t)back < LOW_END);
    return back(n);
}

extern int main(int, char **);
/* Where the JIT put its function `frames`. */
static uint64_t frames_at;

struct walk {
    int jitted, total, reached_main;
};

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *data)
{
    struct walk *walk = data;
    walk->total++;
    void *start = _Unwind_FindEnclosingFunction((void *)(_Unwind_GetIP(context) - 1));
    walk->jitted += start == (void *)frames_at;
    walk->reached_main |= start == (void *)(uintptr_t)main;
    return walk->total > 100 ? _URC_NORMAL_STOP : _URC_NO_REASON;
}

/* 1 if a walk up the stack passes through the JIT's function and arrives in main. */
static int host_frames(void)
{
    struct walk walk = {0};
    _Unwind_Backtrace(step, &walk);
    return walk.jitted == 1 && walk.reached_main;
}

/* The access of the page at an address, as /proc/self/maps has it; no page may be w and x. */
static void access_at(uint64_t addr, char access[5])
{
    /* Valgrind has such pages of its own. */
    int others = getenv("UNDER_VALGRIND") != NULL;
    FILE *maps = fopen("/proc/self/maps", "r");
    CHECK(maps != NULL);
    char line[512], found[5];
    unsigned long start, end;
    access[0] = 0;
    while (fgets(line, sizeof line, maps) != NULL)
        if (sscanf(line, "%lx-%lx %4s", &start, &end, found) == 3) {
            CHECK(found[1] != 'w' || found[2] != 'x' || others);
            if (start <= addr && addr < end)
                memcpy(access, found, sizeof found);
        }
    fclose(maps);
}

static inline LLVMModuleRef read_module(LLVMContextRef context, const char *path)
{
    LLVMMemoryBufferRef buffer;
    char *text = NULL;
    if (LLVMCreateMemoryBufferWithContentsOfFile(path, &buffer, &text) != 0) {
        fprintf(stderr, "%s: %s\n", path, text);
        exit(1);
    }
    LLVMModuleRef module;
    CHECK(LLVMParseBitcodeInContext2(context, buffer, &module) == 0);
    LLVMDisposeMemoryBuffer(buffer);
    return module;
}

/* Calls everything of llvm_module.c. `find` gives a function's or variable's address. */
static void exercise(void *owner, uint64_t (*find)(void *, const char *))
{
    const char *const names[] = {"add", "use_data", "back", "frames", "pick", "calls"};
    uint64_t at[6];
    for (int i = 0; i < 6; i++) {
        at[i] = find(owner, names[i]);
        CHECK(at[i] != 0 && at[i] < LOW_END);
        char access[5];
        access_at(at[i], access);
        CHECK(strncmp(access, i < 5 ? "r-x" : "rw-", 3) == 0);
        printf("%s %#lx\n", names[i], (unsigned long)at[i]);
    }
    CHECK(((int (*)(int, int))at[0])(40, 2) == 42);
    CHECK(*(int *)at[5] == 101);
    CHECK(((int (*)(int))at[1])(4) == 11 + 'o' + 4 + 101);
    CHECK(((int (*)(int))at[2])(5) == 16);
    frames_at = at[3];
    CHECK(((int (*)(void))at[3])() == 1);
    CHECK(((int (*)(int))at[4])(2) == 29 && ((int (*)(int))at[4])(0) == 102);
}

#endif
