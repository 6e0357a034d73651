/* Runs one kernel without TVM's runtime, for processors that this machine only emulates.
 *
 * argv[1] is a file of arrays, the output last.  Each: int32 bits of a number, 8 for whole ones and
 * more for floats, int32 dimensions, int64 extents, values.  The output's values go to argv[2].  Parallel loops run as THREADS tasks,
 * one after the other, so that their work is split as between threads.
 *
 * The structures are those of dlpack.h and tvm/ffi/c_api.h.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { THREADS = 3, CPU = 1, UNSIGNED = 1, FLOAT = 2, TENSOR_POINTER = 7, MOST = 8 };

typedef struct {
  void *data;
  int32_t device_type, device_id, ndim;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} Tensor;

typedef struct {
  int32_t type_index;
  uint32_t padding;
  void *pointer;
} Any;

typedef struct {
  void *sync_handle;
  int32_t num_task;
} Group;

typedef int (*Lambda)(int task, Group *group, void *data);

extern int __tvm_ffi_main(void *self, Any *arguments, int32_t count, Any *result);

static int parallel_launch(Lambda lambda, void *data, int tasks) {
  Group group = {0, tasks ? tasks : THREADS};
  for (int task = 0; task < group.num_task; ++task) {
    int status = lambda(task, &group, data);
    if (status) return status;
  }
  return 0;
}

static void *allocate(int type, int id, uint64_t bytes, int code, int bits) {
  void *memory = aligned_alloc(64, (bytes + 63) / 64 * 64);
  memset(memory, 0xff, bytes); /* not-a-numbers: what is not written must not be read */
  return memory;
}

static int release(int type, int id, void *memory) {
  free(memory);
  return 0;
}

int (*__TVMBackendParallelLaunch)(Lambda, void *, int) = parallel_launch;
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = allocate;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) {
  fprintf(stderr, "%s: %s\n", kind, message);
}

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t part = 0; part < count; ++part) fputs(parts[part], stderr);
  fputc('\n', stderr);
}

int main(int argc, char **argv) {
  Tensor tensors[MOST] = {0};
  Any arguments[MOST] = {0}, result = {0};
  uint64_t bytes = 0;
  int32_t count = 0, header[2];
  FILE *file = fopen(argv[1], "rb");
  if (argc != 3 || !file) return 2;
  while (count < MOST && fread(header, sizeof header, 1, file) == 1) {
    Tensor *tensor = &tensors[count];
    tensor->device_type = CPU;
    tensor->code = header[0] == 8 ? UNSIGNED : FLOAT;
    tensor->bits = header[0];
    tensor->lanes = 1;
    tensor->ndim = header[1];
    tensor->shape = calloc(header[1], sizeof(int64_t));
    if (fread(tensor->shape, sizeof(int64_t), header[1], file) != (size_t)header[1]) return 2;
    bytes = header[0] / 8;
    for (int32_t axis = 0; axis < header[1]; ++axis) bytes *= tensor->shape[axis];
    tensor->data = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (fread(tensor->data, 1, bytes, file) != bytes) return 2;
    arguments[count].type_index = TENSOR_POINTER;
    arguments[count++].pointer = tensor;
  }
  fclose(file);
  if (__tvm_ffi_main(0, arguments, count, &result)) return 1;
  file = fopen(argv[2], "wb");
  if (!file || fwrite(tensors[count - 1].data, 1, bytes, file) != bytes) return 2;
  return fclose(file);
}
