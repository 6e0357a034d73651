// A stand-in for NVIDIA's driver and CUDA's runtime library on a machine without a GPU: what TVM's
// runtime and ferplus_tvm call of them, over emulated kernels (emulation.h).
//
// Its memory is the host's, filled with NaN when it is given out; a stream in capture records its
// launches and does not run them, as a CUDA graph is recorded.  The environment says what it is:
//   FERPLUS_EMULATED_ARCH       the compute capability, such as 90
//   FERPLUS_EMULATED_GPUS       how many GPUs there are, 1 by default
//   FERPLUS_EMULATED_BYTES      bytes of memory of each
//   FERPLUS_EMULATED_STATUS     what cuInit returns
//   FERPLUS_EMULATED_BROKEN     not 0: a kernel has failed, as every call says from now on
//   FERPLUS_EMULATED_LOG        a file that what happens is written to, a line each

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

struct Kernel {
  std::string name;
  void (*run)(unsigned, unsigned, void**);
  int arguments;
  int shared = 48 << 10;  // bytes that it may ask for
};

struct Launch {
  Kernel* kernel;
  unsigned blocks, threads;
  std::vector<uint64_t> arguments;
};

struct Stream {
  bool capturing = false;
  std::vector<Launch> recorded;
};

long setting(const char* name, long otherwise) {
  const char* text = getenv(name);
  return text ? atol(text) : otherwise;
}

void note(const std::string& line) {
  static FILE* file = getenv("FERPLUS_EMULATED_LOG") ? fopen(getenv("FERPLUS_EMULATED_LOG"), "a") : nullptr;
  if (file) fprintf(file, "%s\n", line.c_str()), fflush(file);
}

Stream* default_stream() {
  static Stream stream;
  return &stream;
}
Stream* of(void* stream) { return stream ? static_cast<Stream*>(stream) : default_stream(); }

pid_t process = 0;  // that has begun; a fork of it has no driver
thread_local int device = 0;
std::atomic<int> captures = 0;  // in all threads: they are TVM's, which forbid much to all

// What CUDA says of calls that it does not allow just now: 3 in a forked process, 700 after a
// kernel has failed, 906 for the default stream while another one is recorded, 900 for memory.
int refused(bool memory);
std::map<void*, size_t>& blocks() {
  static std::map<void*, size_t> all;
  return all;
}
size_t used = 0;

int refused(bool memory) {
  if (process && process != getpid()) return 3;
  if (setting("FERPLUS_EMULATED_BROKEN", 0)) return 700;
  return captures ? (memory ? 900 : 906) : 0;
}

void run(const Launch& launch) {
  std::vector<uint64_t> values = launch.arguments;
  std::vector<void*> pointers;
  for (uint64_t& value : values) pointers.push_back(&value);
  launch.kernel->run(launch.blocks, launch.threads, pointers.data());
}

}  // namespace

extern "C" {

struct LaunchConfig {
  unsigned grid[3], block[3], shared;
  void* stream;
  void* attributes;
  unsigned attribute_count;
};

// The driver: status 0 is success.

int cuInit(unsigned) {
  if (!process) process = getpid();
  return process == getpid() ? int(setting("FERPLUS_EMULATED_STATUS", 0)) : 3;  // as after a fork
}
int cuDeviceGetCount(int* count) { return *count = int(setting("FERPLUS_EMULATED_GPUS", 1)), 0; }
int cuDeviceGet(int* handle, int index) { return *handle = index, 0; }
int cuDeviceGetName(char* name, int size, int) { return snprintf(name, size, "Emulated GPU"), 0; }
int cuDeviceGetAttribute(int* value, int attribute, int) {
  const long capability = setting("FERPLUS_EMULATED_ARCH", 90);
  const std::map<int, long> known = {  // kilohertz, SMs, and the compute capability
      {13, 1500000}, {16, 4}, {75, capability / 10}, {76, capability % 10}};
  *value = known.count(attribute) ? int(known.at(attribute)) : 0;
  return 0;
}
int cuGetErrorName(int status, const char** name) {
  *name = status == 2 ? "CUDA_ERROR_OUT_OF_MEMORY" : status == 100 ? "CUDA_ERROR_NO_DEVICE"
                                                                    : "CUDA_ERROR_UNKNOWN";
  return 0;
}
int cuGetErrorString(int, const char** text) { return *text = "some error", 0; }

int cuModuleLoadData(void** module, const void* image) {
  // Machine code is an ELF file for NVIDIA's architecture (EM_CUDA, 190).
  const auto* bytes = static_cast<const unsigned char*>(image);
  if (memcmp(bytes, "\x7f" "ELF", 4) || (bytes[18] | bytes[19] << 8) != 190) return 200;
  note("module");
  // Behind the header is the name of the library that emulator.py has compiled.
  *module = dlopen(reinterpret_cast<const char*>(bytes + 64), RTLD_NOW);
  if (!*module) fprintf(stderr, "%s\n", dlerror());
  return *module ? 0 : 200;
}
int cuModuleUnload(void*) { return 0; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  const std::string symbol = name;
  void* run = dlsym(module, ("emulated_" + symbol).c_str());
  void* count = dlsym(module, ("arguments_of_" + symbol).c_str());
  if (!run || !count) return 500;
  *function = new Kernel{symbol, reinterpret_cast<void (*)(unsigned, unsigned, void**)>(run),
                         *static_cast<int*>(count)};
  return 0;
}
int cuFuncSetAttribute(void* function, int, int value) {
  if (value > 99 << 10) return 1;
  return static_cast<Kernel*>(function)->shared = value, 0;
}
int cuLaunchKernelEx(const LaunchConfig* config, void* function, void** arguments, void**) {
  auto* kernel = static_cast<Kernel*>(function);
  if (int(config->shared) > kernel->shared || config->block[0] > 1024) return 1;
  Launch launch{kernel, config->grid[0], config->block[0], {}};
  for (int i = 0; i < kernel->arguments; ++i)
    launch.arguments.push_back(*static_cast<uint64_t*>(arguments[i]));
  Stream* stream = of(config->stream);
  if (!stream->capturing)
    if (int status = refused(false)) return status;
  note((stream->capturing ? "record " : "launch ") + kernel->name);
  if (stream->capturing)
    stream->recorded.push_back(launch);
  else
    run(launch);
  return 0;
}
int cuTensorMapEncodeTiled() { return 801; }

// The runtime library.

const char* cudaGetErrorName(int status) {
  return status == 2 ? "cudaErrorMemoryAllocation" : "cudaErrorUnknown";
}
const char* cudaGetErrorString(int status) { return status == 2 ? "out of memory" : "some error"; }
int cudaGetLastError() { return 0; }
int cudaPeekAtLastError() { return 0; }
int cudaGetDeviceCount(int* count) { return cuDeviceGetCount(count); }
int cudaGetDevice(int* index) {
  if (process && process != getpid()) return 3;
  return *index = device, 0;
}
int cudaSetDevice(int index) { return device = index, 0; }
int cudaDeviceGetAttribute(int* value, int attribute, int index) {
  return cuDeviceGetAttribute(value, attribute, index);
}
int cudaGetDeviceProperties(void*, int) { return 801; }
int cudaMemGetInfo(size_t* free_bytes, size_t* all) {
  *all = size_t(setting("FERPLUS_EMULATED_BYTES", 8L << 30));
  *free_bytes = *all > used ? *all - used : 0;
  return 0;
}
int cudaMalloc(void** pointer, size_t size) {
  size_t left, all;
  cudaMemGetInfo(&left, &all);
  if (size > left) return 2;
  if (int status = refused(true)) return status;
  *pointer = aligned_alloc(256, (size + 255) / 256 * 256);
  memset(*pointer, 0xff, size);
  blocks()[*pointer] = size;
  used += size;
  note("allocate");
  return 0;
}
int cudaFree(void* pointer) {
  if (!pointer) return 0;
  if (int status = refused(true)) return status;
  used -= blocks()[pointer];
  blocks().erase(pointer);
  free(pointer);
  return 0;
}
int cudaMallocHost(void** pointer, size_t size) {
  return *pointer = aligned_alloc(256, (size + 255) / 256 * 256), 0;
}
int cudaFreeHost(void* pointer) {
  if (int status = refused(true)) return status;
  return free(pointer), 0;
}
int cudaMemcpyAsync(void* to, const void* from, size_t size, int kind, void*) {
  if (int status = refused(false)) return status;
  static const char* names[] = {"host to host", "to GPU", "from GPU", "within GPU", "copy"};
  note(std::string("copy ") + names[kind]);
  return memcpy(to, from, size), 0;
}
int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t size, void*) {
  return memcpy(to, from, size), 0;
}
int cudaStreamCreate(void** stream) { return *stream = new Stream, 0; }
int cudaStreamCreateWithFlags(void** stream, unsigned) { return cudaStreamCreate(stream); }
int cudaStreamDestroy(void* stream) { return delete static_cast<Stream*>(stream), 0; }
int cudaStreamSynchronize(void*) {
  if (int status = refused(false)) return status;
  return note("synchronize"), 0;
}
int cudaStreamWaitEvent(void*, void*, unsigned) { return 0; }
int cudaStreamBeginCapture(void* stream, int) {
  usleep(2000);  // so that what other threads do falls into it
  return ++captures, of(stream)->capturing = true, 0;
}
int cudaStreamEndCapture(void* stream, void** graph) {
  *graph = new std::vector<Launch>(of(stream)->recorded);
  of(stream)->recorded.clear();
  usleep(2000);
  --captures;
  return of(stream)->capturing = false, 0;
}
int cudaGraphInstantiate(void** executable, void* graph, unsigned long long) {
  *executable = new std::vector<Launch>(*static_cast<std::vector<Launch>*>(graph));
  return 0;
}
int cudaGraphLaunch(void* executable, void*) {
  note("graph");
  for (const Launch& launch : *static_cast<std::vector<Launch>*>(executable)) run(launch);
  return 0;
}
int cudaGraphDestroy(void* graph) { return delete static_cast<std::vector<Launch>*>(graph), 0; }
int cudaGraphExecDestroy(void* graph) { return cudaGraphDestroy(graph); }
int cudaEventCreate(void** event) { return *event = new Clock::time_point, 0; }
int cudaEventDestroy(void* event) { return delete static_cast<Clock::time_point*>(event), 0; }
int cudaEventRecord(void* event, void*) {
  return *static_cast<Clock::time_point*>(event) = Clock::now(), 0;
}
int cudaEventSynchronize(void*) { return 0; }
int cudaEventElapsedTime(float* milliseconds, void* from, void* to) {
  const std::chrono::duration<float, std::milli> passed =
      *static_cast<Clock::time_point*>(to) - *static_cast<Clock::time_point*>(from);
  return *milliseconds = passed.count(), 0;
}
}
