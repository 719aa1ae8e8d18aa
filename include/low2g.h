/*
 * low2g: randomized memory below 2 GiB, and a relocation engine that loads objects there.
 *
 * Pointers are NULL or valid for what their names say, strings end with NUL. No exception and no
 * panic leaves a function. Every misuse that can be told (NULL, a freed handle, one of another kind,
 * a wrong order, a second free) is an error. Whoever frees a handle sees to it that no other thread
 * uses it. `char **error` is NULL, or takes NULL on success and a malloc'ed text on failure, to be
 * freed with `free`; low2g_last_status and low2g_last_error tell of this thread's latest call.
 *
 * Made by cbindgen from src/capi; do not edit.
 */

#ifndef LOW2G_H
#define LOW2G_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// An allocator of memory below 2 GiB, or in the reach that it was given. Several threads may use
// one at the same time.
typedef struct low2g_allocator low2g_allocator;

// Loads objects into low memory. Modules loaded in one session see each other's symbols. Several
// threads may use one at the same time; what one adds is loaded by whichever loads next.
typedef struct low2g_session low2g_session;

// A link that has addresses and waits for its externals. Any thread may go on with it, one at a time.
typedef struct low2g_link low2g_link;

// Code and data that were loaded.
typedef struct low2g_module low2g_module;

// Section memory for LLVM: what its callbacks take as their first argument.
typedef struct low2g_llvm_memory low2g_llvm_memory;

// How a call ended. The text says more.
typedef enum low2g_status {
    // It did what it says.
    LOW2G_STATUS_OK = 0,
    // An argument is NULL where it may not be, or has a value that nothing could satisfy.
    LOW2G_STATUS_INVALID_ARGUMENT = 1,
    // The handle was freed before, or is of another kind.
    LOW2G_STATUS_INVALID_HANDLE = 2,
    // A call that is not allowed at this point.
    LOW2G_STATUS_WRONG_ORDER = 3,
    // What is to be freed or published is not in use, or is none of this allocator's.
    LOW2G_STATUS_NOT_IN_USE = 4,
    // A freed block was written to.
    LOW2G_STATUS_WRITTEN_AFTER_FREE = 5,
    // No low memory is left, or there is none.
    LOW2G_STATUS_NO_MEMORY = 6,
    // Addresses would be easier to guess than the minimum allows.
    LOW2G_STATUS_ENTROPY_TOO_LOW = 7,
    // The system's policy refuses, or it has no call for it.
    LOW2G_STATUS_REFUSED = 8,
    // The allocator's addresses do not serve the code model.
    LOW2G_STATUS_REACH_TOO_WIDE = 9,
    // The file cannot be read, or the library cannot be opened.
    LOW2G_STATUS_FILE = 10,
    // The inputs do not link; the text has a line for each reason.
    LOW2G_STATUS_LINK = 11,
    // No symbol of that name and kind.
    LOW2G_STATUS_NO_SYMBOL = 12,
    // A mistake inside low2g.
    LOW2G_STATUS_INTERNAL = 13,
} low2g_status;

// The step of placement that found an address.
typedef enum low2g_step {
    // A uniform draw over the whole reach.
    LOW2G_STEP_DRAW = 0,
    // A uniform pick among what a survey showed free.
    LOW2G_STEP_SURVEY = 1,
    // A draw or pick that the system took as a hint.
    LOW2G_STEP_HINT = 2,
    // The system's own choice: a weaker grade.
    LOW2G_STEP_MAP32BIT = 3,
    // A random slot of an arena at a random address.
    LOW2G_STEP_ARENA = 4,
    // The lowest address that fits.
    LOW2G_STEP_FIRST_FIT = 5,
    // The address that the caller named.
    LOW2G_STEP_FIXED = 6,
} low2g_step;

// What a symbol is.
typedef enum low2g_symbol_kind {
    // Not known: calls take stubs, instructions that need its address are moved.
    LOW2G_SYMBOL_KIND_UNKNOWN = 0,
    // A function.
    LOW2G_SYMBOL_KIND_FUNCTION = 1,
    // A variable or a constant.
    LOW2G_SYMBOL_KIND_DATA = 2,
} low2g_symbol_kind;

// What the JIT compiles for. The memory manager cannot see it, so it must be told.
typedef enum low2g_code_model {
    // Small, with the static relocation model (MCJIT's default): absolute 32-bit addresses.
    LOW2G_CODE_MODEL_SMALL = 0,
    // Medium, static.
    LOW2G_CODE_MODEL_MEDIUM = 1,
    // Large: 64-bit addresses; any reach serves.
    LOW2G_CODE_MODEL_LARGE = 2,
    // Small, with the PIC relocation model: 32-bit distances; any reach of less than 2 GiB serves.
    LOW2G_CODE_MODEL_SMALL_PIC = 3,
} low2g_code_model;

// What an allocator holds and did. Bytes are whole pages.
typedef struct low2g_statistics {
    // Mappings held now.
    uint64_t live_mappings;
    // Bytes of those.
    uint64_t live_bytes;
    // Bytes of arenas for small data blocks.
    uint64_t data_arena_bytes;
    // Bytes of slots in use in those.
    uint64_t data_slot_bytes;
    // Bytes of arenas for code, one view counted.
    uint64_t code_arena_bytes;
    // Bytes of slots in use in those.
    uint64_t code_slot_bytes;
    // Claims that the system was asked for.
    uint64_t attempts;
    // Claims that met something in the way.
    uint64_t collisions;
    // Surveys made.
    uint64_t surveys;
    // Mappings made by each `low2g_step`.
    uint64_t steps[7];
    // Bytes that the system refused to take back.
    uint64_t stuck_bytes;
} low2g_statistics;

// How an address was chosen, and how hard it is to guess.
typedef struct low2g_certificate {
    // At least this many bits for one who knows none of the live addresses.
    double entropy_bits;
    // At least this many bits for one who knows all other live addresses.
    double conditional_bits;
    // Start addresses that were possible.
    uint64_t free_slots;
    // The step of placement that found it.
    enum low2g_step step;
    // Whether `free_slots` was counted for this very request.
    bool free_slots_exact;
    // Whether a seed decided: both bit counts are 0 then.
    bool seeded;
} low2g_certificate;

// What lies at an address.
typedef struct low2g_owned {
    // Where it starts: the block's slot, or its pages (with their guards).
    uint64_t start;
    // Bytes.
    uint64_t size;
    // Whether it executes.
    bool executable;
    // Whether it is in use; a free slot of an arena is not.
    bool in_use;
} low2g_owned;

// A symbol with an address.
typedef struct low2g_symbol {
    // Its address.
    uint64_t addr;
    // Bytes, 0 if not known.
    uint64_t size;
    // What it is.
    low2g_symbol_kind kind;
} low2g_symbol;

// Is told of a symbol; `name` is good during the call. It throws no exception.
typedef void (*low2g_symbol_visitor)(void *context,
                                     const char *name,
                                     const struct low2g_symbol *symbol);

// Is told of a name that is needed from elsewhere: whether it may stay undefined (its address is 0
// then), and whether it is used as a thread-local variable. It throws no exception.
typedef void (*low2g_undefined_visitor)(void *context,
                                        const char *name,
                                        bool weak,
                                        bool is_thread_local);

// Answers for a name: fills `*out` and returns true, or returns false to let others answer. It
// throws no exception. A name may carry a version: `memcpy@GLIBC_2.2.5`.
typedef bool (*low2g_resolver)(void *context, const char *name, struct low2g_symbol *out);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// An allocator. `options` is NULL or `key=value` pairs joined by commas, in the command line's words:
// `placement=randomized|first-fit|kernel`, `reach=2g|2g-full|4g|near:0xADDR|0xSTART-0xEND`, `seed=N`,
// `min-entropy=BITS`, `min-conditional-entropy=BITS`, `preset=bare|default|hardened`,
// `floor=ADDR`, `byte-limit=N`, `keep-hole=N`, `guards=yes|no`, `seal-code=yes|no`.
//
// Returns NULL on failure; then `*error`, if `error` is not NULL, is a text to `free`.
low2g_allocator *low2g_allocator_new(const char *options,
                                     char **error);

// Frees an allocator and every block that is still allocated. Sessions, modules and JIT memory made
// from it stay as they are. NULL is ignored.
enum low2g_status low2g_allocator_free(low2g_allocator *allocator);

// The addresses that blocks may have: the first, and the first past them.
enum low2g_status low2g_allocator_window(const low2g_allocator *allocator,
                                         uint64_t *start,
                                         uint64_t *end,
                                         char **error);

// Counters; cheap.
enum low2g_status low2g_allocator_statistics(const low2g_allocator *allocator,
                                             struct low2g_statistics *out,
                                             char **error);

// Gives back what is held for later: freed blocks that wait, empty arenas.
enum low2g_status low2g_allocator_trim(const low2g_allocator *allocator, char **error);

// `size` bytes of any content at a multiple of `align`, a power of two. NULL on failure.
void *low2g_data_allocate(const low2g_allocator *allocator,
                          size_t size,
                          size_t align,
                          char **error);

// As `low2g_data_allocate`, with all bytes zero. `certificate` is NULL or is told how the address
// was chosen.
void *low2g_data_allocate_zeroed(const low2g_allocator *allocator,
                                 size_t size,
                                 size_t align,
                                 struct low2g_certificate *certificate,
                                 char **error);

// Makes a data block hold `size` bytes at a multiple of `align`, a power of two: where it lies if that
// can be, else elsewhere, with what it held as far as that fits. Bytes that are added may hold
// anything. A `block` of NULL is allocated. NULL on failure: the block is then as it was.
void *low2g_data_reallocate(const low2g_allocator *allocator,
                            void *block,
                            size_t size,
                            size_t align,
                            char **error);

// Frees a data block. NULL is ignored; what is no block in use is an error and changes nothing. A
// second free of an address that is in use again is not noticed.
enum low2g_status low2g_data_free(const low2g_allocator *allocator, void *block, char **error);

// Bytes that the data block may hold, at least those asked for; 0 if it is none in use.
size_t low2g_data_usable_size(const low2g_allocator *allocator, const void *block);

// What of this allocator's lies at `addr`, which need not be a start.
// `LOW2G_STATUS_NOT_IN_USE` if nothing does.
enum low2g_status low2g_owner_of(const low2g_allocator *allocator,
                                 const void *addr,
                                 struct low2g_owned *out,
                                 char **error);

// Memory for `size` bytes of code at a multiple of `align`, a power of two. The code is written at
// `*write` and executes at `*exec` once it is published; the two are the same address where this
// system refuses second views. `certificate` is NULL or is told how `*exec` was chosen.
enum low2g_status low2g_code_allocate(const low2g_allocator *allocator,
                                      size_t size,
                                      size_t align,
                                      void **write,
                                      void **exec,
                                      struct low2g_certificate *certificate,
                                      char **error);

// Makes the code that was written for `exec` executable. Nothing writes it afterwards. Where the
// system refuses, the block is freed.
enum low2g_status low2g_code_publish(const low2g_allocator *allocator, void *exec, char **error);

// Frees the code at `exec`, published or not. NULL is ignored; what is no such block is an error
// and changes nothing.
enum low2g_status low2g_code_free(const low2g_allocator *allocator, void *exec, char **error);

// The first half of `low2g_session_load`: reads what was added since the last load and gives it its
// addresses. Nothing of it runs.
enum low2g_status low2g_session_begin(const low2g_session *session,
                                      low2g_link **link,
                                      char **error);

// Tells `visitor` of the symbols that the link defines, but for thread-local variables and ifuncs, which
// have no address yet.
enum low2g_status low2g_link_symbols(const low2g_link *link,
                                     low2g_symbol_visitor visitor,
                                     void *context,
                                     char **error);

// Tells `visitor` of the names that the link needs from elsewhere.
enum low2g_status low2g_link_undefined(const low2g_link *link,
                                       low2g_undefined_visitor visitor,
                                       void *context,
                                       char **error);

// Answers for an undefined name. A later answer for the same name wins.
enum low2g_status low2g_link_define(const low2g_link *link,
                                    const char *name,
                                    const struct low2g_symbol *symbol,
                                    char **error);

// Answers for an undefined thread-local variable: `of` defines it. `of` stays loaded as long as the
// module of this link.
enum low2g_status low2g_link_define_thread_local(const low2g_link *link,
                                                 const char *name,
                                                 const low2g_module *of,
                                                 char **error);

// Puts another definition in the place of the link's own weak one of that name.
enum low2g_status low2g_link_replace_weak(const low2g_link *link,
                                          const char *name,
                                          const struct low2g_symbol *symbol,
                                          char **error);

// The second half of `low2g_session_load`: what no definition of the link names comes from where that
// function takes it. The link is gone afterwards, whatever the result.
enum low2g_status low2g_link_finish(low2g_link *link,
                                    low2g_module **module,
                                    char **error);

// Gives a link up; nothing of it stays. NULL is ignored.
enum low2g_status low2g_link_abandon(low2g_link *link, char **error);

// Memory from `allocator` for code of `model`, to be given to
// `LLVMCreateSimpleMCJITMemoryManager`, or to ORC's layer as the context of contexts. It may outlive
// the allocator's handle. NULL on failure (`LOW2G_STATUS_REACH_TOO_WIDE` if the allocator's reach
// does not serve the model), and low2g_last_error tells why.
low2g_llvm_memory *low2g_llvm_memory_new(const low2g_allocator *allocator,
                                         low2g_code_model model);

// `LLVMMemoryManagerAllocateCodeSectionCallback`. NULL on failure, which LLVM reports as a fatal
// error; in a context of ORC's, ordinary memory instead, and `low2g_llvm_finalize_memory` fails.
uint8_t *low2g_llvm_allocate_code_section(void *opaque,
                                          size_t size,
                                          unsigned int alignment,
                                          unsigned int section_id,
                                          const char *section_name);

// `LLVMMemoryManagerAllocateDataSectionCallback`; as the one for code.
uint8_t *low2g_llvm_allocate_data_section(void *opaque,
                                          size_t size,
                                          unsigned int alignment,
                                          unsigned int section_id,
                                          const char *section_name,
                                          int is_read_only);

// `LLVMMemoryManagerFinalizeMemoryCallback`: gives all sections their final access. May be called again
// after more were allocated. 0, or 1 with a malloc'ed `*error`.
int low2g_llvm_finalize_memory(void *opaque,
                               char **error);

// `LLVMMemoryManagerDestroyCallback`: unmaps everything. What is no memory, or was destroyed before, is
// left alone.
void low2g_llvm_destroy(void *opaque);

// `LLVMMemoryManagerCreateContextCallback`, for a `low2g_llvm_memory` as the context of contexts:
// memory of the same kind for one object, which `low2g_llvm_destroy` ends.
void *low2g_llvm_create_context(void *memory);

// `LLVMMemoryManagerNotifyTerminatingCallback`: ends the context of contexts. Contexts stay.
void low2g_llvm_notify_terminating(void *memory);

// How the address of the section around `addr` was chosen.
enum low2g_status low2g_llvm_certificate(const low2g_llvm_memory *memory,
                                         const void *addr,
                                         struct low2g_certificate *out,
                                         char **error);

// The global symbol `name`, of any kind but thread-local.
enum low2g_status low2g_module_symbol(const low2g_module *module,
                                      const char *name,
                                      struct low2g_symbol *out,
                                      char **error);

// Tells `visitor` of every global symbol but thread-local ones, in no order.
enum low2g_status low2g_module_symbols(const low2g_module *module,
                                       low2g_symbol_visitor visitor,
                                       void *context,
                                       char **error);

// The address of the function `name`; NULL on failure, and if `name` is no function.
void *low2g_module_function(const low2g_module *module, const char *name, char **error);

// The address of the variable or constant `name`, and its bytes if `size` is not NULL; NULL on
// failure, and if `name` is a function.
void *low2g_module_data(const low2g_module *module, const char *name, size_t *size, char **error);

// The calling thread's copy of the thread-local variable `name`, good as long as the thread and the
// module live, and its bytes if `size` is not NULL; NULL on failure.
void *low2g_module_thread_local(const low2g_module *module,
                                const char *name,
                                size_t *size,
                                char **error);

// Unloads a module: runs its destructors and unmaps it, as soon as no other module uses its symbols.
// Nothing may run in it or point into it any more, as after `dlclose`. NULL is ignored.
enum low2g_status low2g_module_unload(low2g_module *module,
                                      char **error);

// A session. `allocator` places its modules; NULL for one of its own with the default settings.
// `options` is NULL or `key=value` pairs joined by commas: `model=small|medium|large|small-pic`,
// `relax=none|pcrel|all`, `far-data=island|error`, `debugger=traced|always|never`, `entry=SYM`,
// `whole-archive=yes|no`, `scatter=yes|no`, `share-hidden=yes|no`, `process-symbols=yes|no`.
//
// A named model other than `small-pic` is that of static code: an allocator whose reach does not serve
// it is refused with `LOW2G_STATUS_REACH_TOO_WIDE`. Where none is named, each object is held to what
// it needs when it is linked.
//
// Returns NULL on failure; then `*error`, if `error` is not NULL, is a text to `free`.
low2g_session *low2g_session_new(const low2g_allocator *allocator,
                                 const char *options,
                                 char **error);

// Frees a session; its modules stay loaded. NULL is ignored.
enum low2g_status low2g_session_free(low2g_session *session);

// Adds an object or archive for the next load. Its `size` bytes at `data` are copied; `name` is shown
// in messages.
enum low2g_status low2g_session_add_memory(const low2g_session *session,
                                           const char *name,
                                           const void *data,
                                           size_t size,
                                           char **error);

// Adds an object, archive or linker script for the next load. The shared libraries that a script
// names are opened.
enum low2g_status low2g_session_add_file(const low2g_session *session,
                                         const char *path,
                                         char **error);

// Opens a shared library, by path or soname, whose symbols are asked before the process's.
enum low2g_status low2g_session_open_library(const low2g_session *session,
                                             const char *name,
                                             char **error);

// Defines a function of the program under `name`, before the process's own symbols.
enum low2g_status low2g_session_define_function(const low2g_session *session,
                                                const char *name,
                                                const void *addr,
                                                char **error);

// Defines a variable of the program, `size` bytes at `addr`, under `name`.
enum low2g_status low2g_session_define_data(const low2g_session *session,
                                            const char *name,
                                            const void *addr,
                                            size_t size,
                                            char **error);

// Asks `resolver` with `context` for what no definition names, before earlier modules and the
// process. NULL for none. Any thread that loads may call it, until another is set or the session is
// freed.
enum low2g_status low2g_session_set_resolver(const low2g_session *session,
                                             low2g_resolver resolver,
                                             void *context,
                                             char **error);

// Links what was added since the last load, and runs its constructors: a module. Undefined names come
// from definitions, the resolver, modules loaded earlier, libraries and the process, in this
// order. On failure nothing stays mapped, and what was added is gone.
enum low2g_status low2g_session_load(const low2g_session *session,
                                     low2g_module **module,
                                     char **error);

// How this thread's latest call of a function of this header ended.
enum low2g_status low2g_last_status(void);

// The text of this thread's latest call, empty if it succeeded; good until the thread's next call
// of a function of this header.
const char *low2g_last_error(void);

// The version of the library: "MAJOR.MINOR.PATCH". Never freed.
const char *low2g_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* LOW2G_H */
