// CUDA for a machine without a GPU: a kernel's source, compiled as C++, run block after block, each
// thread of a block as a fiber.  It stands in for primitives.cuh.
//
// Copies to shared memory happen as late as the language allows, when they are waited for, so that
// a missing wait is a wrong answer here too; a barrier that some thread never reaches ends the
// process.  What it cannot show: races between warps, and time.

#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#pragma GCC diagnostic ignored "-Wunknown-pragmas"

struct half {
  uint16_t bits;
};

static inline float __half2float(half h) {
  // The same exponent and fraction in a float, which is then too small by 2 ** 112.
  const uint32_t bits = uint32_t(h.bits & 0x8000) << 16 | uint32_t(h.bits & 0x7fff) << 13;
  float value;
  memcpy(&value, &bits, 4);
  return (h.bits & 0x7c00) == 0x7c00 ? (h.bits & 1023 ? NAN : h.bits >> 15 ? -INFINITY : INFINITY)
                                     : value * 0x1p112f;
}

static inline half __float2half_rn(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  const uint16_t sign = bits >> 16 & 0x8000;
  const float size = fabsf(value);
  if (isnan(value)) return {uint16_t(sign | 0x7e00)};
  if (size >= 65520.0f) return {uint16_t(sign | 0x7c00)};
  if (size < ldexpf(1, -14)) return {uint16_t(sign | uint16_t(nearbyintf(ldexpf(size, 24))))};
  int exponent;
  const float fraction = frexpf(size, &exponent);  // in 0.5..1
  const uint32_t rounded = uint32_t(nearbyintf(ldexpf(fraction, 11)));  // 1024..2048
  return {uint16_t(sign | (((exponent + 14) << 10) + (rounded - 1024)))};
}

struct float4 {
  float x, y, z, w;
} __attribute__((aligned(16)));
struct uint3 {
  unsigned x, y, z;
};

static uint3 threadIdx, blockIdx, blockDim;

namespace emulation {

struct Copy {
  void* to;
  const void* from;  // null for zeros
};

struct Group {  // threads that meet: a block, or a warp
  int alive = 0, waiting = 0;
  unsigned generation = 0;
};

// What the lanes of a warp show each other.  Two turns alternate, so that one meeting in each is
// enough: who has met in a turn has read all of the one before.
struct Warp : Group {
  struct Lane {
    uint32_t a[4], b[2];
    float value;
  } lanes[2][32];
};

struct Fiber {
  ucontext_t context;  // to begin with; afterwards it jumps, which costs no system call
  jmp_buf place;
  bool begun = false;
  int turn = 0;
  std::unique_ptr<char[]> stack;
  std::vector<std::vector<Copy>> groups;
  std::vector<Copy> open;
  bool done = false;
};

static std::vector<Fiber> fibers;
static std::vector<Warp> warps;
static Group block;
static ucontext_t begin_from;
static jmp_buf scheduler;
static int current;
static bool progress;
static const std::function<void()>* body;

static inline void leave(Group& group) {
  --group.alive;
  if (group.waiting && group.waiting == group.alive) group.waiting = 0, ++group.generation;
}

static inline void meet(Group& group) {
  progress = true;
  if (++group.waiting == group.alive) {
    group.waiting = 0;
    ++group.generation;
    return;
  }
  const unsigned generation = group.generation;
  while (group.generation == generation)
    if (!_setjmp(fibers[current].place)) _longjmp(scheduler, 1);
  progress = true;
}

static inline Warp& warp() { return warps[current / 32]; }
static inline int lane() { return current % 32; }

// Shows what the lanes of a warp have set of themselves, once all have.
template <typename Set>
static inline const Warp::Lane* exchange(Set set) {
  Warp::Lane* lanes = warp().lanes[fibers[current].turn ^= 1];
  set(lanes[lane()]);
  meet(warp());
  return lanes;
}

static void run_fiber() {
  (*body)();
  leave(block);
  leave(warp());
  fibers[current].done = true;
  progress = true;
  _longjmp(scheduler, 1);
}

// Runs a kernel over a grid of blocks.
static void launch(unsigned blocks, unsigned threads, const std::function<void()>& kernel) {
  constexpr size_t kStack = 128 << 10;
  body = &kernel;
  blockDim = {threads, 1, 1};
  if (fibers.size() < threads) fibers.resize(threads);
  warps.resize((threads + 31) / 32);
  for (unsigned at = 0; at < blocks; ++at) {
    blockIdx = {at, 0, 0};
    block = {int(threads), 0, 0};
    for (size_t w = 0; w < warps.size(); ++w)
      warps[w].alive = int(threads - 32 * w < 32 ? threads - 32 * w : 32), warps[w].waiting = 0;
    for (unsigned t = 0; t < threads; ++t) {
      Fiber& fiber = fibers[t];
      if (!fiber.stack) fiber.stack.reset(new char[kStack]);
      getcontext(&fiber.context);
      fiber.context.uc_stack.ss_sp = fiber.stack.get();
      fiber.context.uc_stack.ss_size = kStack;
      fiber.context.uc_link = nullptr;
      makecontext(&fiber.context, run_fiber, 0);
      fiber.done = fiber.begun = false;
      fiber.turn = 0;
      fiber.groups.clear();
      fiber.open.clear();
    }
    for (bool any = true; any;) {
      any = progress = false;
      for (unsigned t = 0; t < threads; ++t) {
        if (fibers[t].done) continue;
        any = true;
        current = int(t);
        threadIdx = {t, 0, 0};
        if (_setjmp(scheduler)) continue;
        if (fibers[t].begun) _longjmp(fibers[t].place, 1);
        fibers[t].begun = true;
        swapcontext(&begin_from, &fibers[t].context);
      }
      if (any && !progress) fprintf(stderr, "threads wait for each other for ever\n"), abort();
    }
  }
}

static inline void arrive(const std::vector<Copy>& copies) {
  for (const Copy& copy : copies) {
    if (copy.from)
      memcpy(copy.to, copy.from, 16);
    else
      memset(copy.to, 0, 16);
  }
}

static inline float word_as_tf32(uint32_t word) {
  word &= ~0x1fffu;  // the hardware does not look at the rest
  float value;
  memcpy(&value, &word, 4);
  return value;
}

}  // namespace emulation

static inline void __syncthreads() { emulation::meet(emulation::block); }

namespace ferplus {

inline void copy16(void* shared, const void* global, bool valid) {
  if ((uintptr_t(shared) | uintptr_t(global)) % 16) fprintf(stderr, "misaligned copy\n"), abort();
  const float poison[4] = {NAN, NAN, NAN, NAN};
  memcpy(shared, poison, 16);  // whoever reads it before it is waited for sees this
  emulation::fibers[emulation::current].open.push_back({shared, valid ? global : nullptr});
}

inline void commit_copies() {
  auto& fiber = emulation::fibers[emulation::current];
  fiber.groups.push_back(std::move(fiber.open));
  fiber.open.clear();
}

template <int Pending>
inline void wait_for_copies() {
  auto& groups = emulation::fibers[emulation::current].groups;
  while (groups.size() > Pending) {
    emulation::arrive(groups.front());
    groups.erase(groups.begin());
  }
}

inline float dot(float, uint32_t a, uint32_t b) {
  return emulation::word_as_tf32(a) * emulation::word_as_tf32(b);
}
inline float dot(half, uint32_t a, uint32_t b) {
  const half low_a{uint16_t(a)}, high_a{uint16_t(a >> 16)};
  const half low_b{uint16_t(b)}, high_b{uint16_t(b >> 16)};
  return __half2float(low_a) * __half2float(low_b) + __half2float(high_a) * __half2float(high_b);
}

// As PTX lays the fragments of mma.m16n8k8 (tf32) and mma.m16n8k16 (f16) out: with g = lane / 4 and
// t = lane % 4, a holds words (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), b words (t, g) and
// (t + 4, g), the sums (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1).
template <typename T>
inline void multiply_fragments(float (&upper)[2], float (&lower)[2], const unsigned (&a)[4],
                               const unsigned (&b)[2]) {
  const int lane = emulation::lane(), g = lane / 4, t = lane % 4;
  const auto* lanes = emulation::exchange([&](auto& own) {
    memcpy(own.a, a, sizeof a);
    memcpy(own.b, b, sizeof b);
  });
  for (int row = 0; row < 2; ++row) {
    for (int i = 0; i < 2; ++i) {
      const int column = 2 * t + i;
      float sum = 0;
      for (int k = 0; k < 8; ++k)
        sum += dot(T{}, lanes[4 * g + k % 4].a[row + k / 4 * 2], lanes[4 * column + k % 4].b[k / 4]);
      (row ? lower : upper)[i] += sum;
    }
  }
}

inline float to_tf32(float value) {  // to the nearest, ties away from zero
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if ((bits & 0x7f800000u) != 0x7f800000u) bits += 0x1000u;
  bits &= ~0x1fffu;
  memcpy(&value, &bits, 4);
  return value;
}

inline float warp_sum(float value) {
  for (int distance = 16; distance > 0; distance /= 2)
    value += emulation::exchange([&](auto& own) { own.value = value; })[emulation::lane() ^ distance]
                 .value;
  return value;
}

}  // namespace ferplus
