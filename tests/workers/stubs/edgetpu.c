/* A stub of libedgetpu.so.1: exports what LiteRT loads, and drives nothing. How it behaves is read from the file that
 * STUB_EDGETPU names: "none" fails as the library does without a device, "idle" succeeds and takes nothing over,
 * "takes" takes the compiled operations over, "fails" does, and its runs fail. The structures are those of LiteRT's
 * common.h, as far as they are used.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { int size; int data[]; } Ints;
typedef struct Context Context;
typedef struct Delegate Delegate;
typedef struct {
  void *(*init)(Context *, const char *, size_t);
  void (*free)(Context *, void *);
  int (*prepare)(Context *, void *);
  int (*invoke)(Context *, void *);
  const char *(*profiling)(const Context *, const void *);
  int32_t builtin_code;
  const char *custom_name;
  int version;
  void *more[8];
} Registration;
struct Context {
  size_t tensors_size;
  int (*execution_plan)(Context *, Ints **);
  void *tensors, *impl, *resize;
  void (*report)(Context *, const char *, ...);
  void *add_tensors;
  int (*node)(Context *, int, void **, Registration **);
  int (*replace)(Context *, Registration, const Ints *, Delegate *);
};
struct Delegate {
  void *data;
  int (*prepare)(Context *, Delegate *);
  void *copy_from, *copy_to, *free_handle;
  int64_t flags;
  void *builder;
};

static int is(const char *word) {
  char found[16] = "none";
  FILE *file = getenv("STUB_EDGETPU") ? fopen(getenv("STUB_EDGETPU"), "r") : NULL;
  if (file) {
    if (fscanf(file, "%15s", found) != 1) found[0] = 0;
    fclose(file);
  }
  return strcmp(found, word) == 0;
}

static int invoke(Context *context, void *node) {
  (void)node;
  if (!is("fails")) return 0;
  context->report(context, "stub: USB transfer error 2 [LibUsbDataOutCallback]");
  return 1;
}

static int prepare(Context *context, Delegate *delegate) {
  Ints *plan, *taken;
  if (is("idle") || context->execution_plan(context, &plan)) return 0;
  taken = calloc(1, sizeof(Ints) + plan->size * sizeof(int));
  for (int i = 0; i < plan->size; i++) {
    void *node;
    Registration *found;
    if (context->node(context, plan->data[i], &node, &found)) continue;
    if (found->custom_name && !strcmp(found->custom_name, "edgetpu-custom-op")) taken->data[taken->size++] = plan->data[i];
  }
  Registration ours = {.invoke = invoke, .custom_name = "stub of the Edge TPU", .version = 1};
  int status = context->replace(context, ours, taken, delegate);
  free(taken);
  return status;
}

void *tflite_plugin_create_delegate(char **keys, char **values, size_t count, void (*report)(const char *)) {
  (void)keys, (void)values, (void)count;
  if (is("none")) {
    report("No EdgeTPU device is found!");
    return NULL;
  }
  Delegate *made = calloc(1, sizeof(Delegate) + 64);
  made->prepare = prepare;
  made->flags = 1; /* any sizes: otherwise LiteRT prepares the graph first, and stops at the unknown operation */
  return made;
}

void tflite_plugin_destroy_delegate(void *delegate) { free(delegate); }
