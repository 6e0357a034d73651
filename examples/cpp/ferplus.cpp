// An app without Python: the scores of faces, by a library of `ferplus-tvm compile`.
//
//     ferplus LIBRARY FACES [THREADS]
//
// FACES holds float32 pixels in 0..255: for each face rows of grey values, or of R, G, B for a
// library that takes colour, as many as the library's manifest says (64 x 64 for FER+).  Prints a
// line of scores for each, in the order of the manifest's labels.  Uses the headers and libraries
// of the apache-tvm-ffi and apache-tvm wheels; README.md beside this file says how to build it,
// also for another architecture.
//
// Of a library for several targets it uses the first, and it asks no CPU what it can do: list the
// least target first, or compile for one.  It reads the file format of docs/artifact-format.md, but
// not its checksums: check a file once with `ferplus-tvm verify`, or hash it as that page says.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/map.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

namespace ffi = tvm::ffi;
using Object = ffi::json::Object;
using List = ffi::json::Array;

constexpr size_t kFooter = 112;

// A tensor over memory that somebody else owns and that outlives it.
struct Borrowed {
  void* data;
  void AllocData(DLTensor* tensor) { tensor->data = data; }
  void FreeData(DLTensor*) {}
};

ffi::Tensor View(void* data, const std::vector<int64_t>& shape, DLDataType type) {
  return ffi::Tensor::FromNDAlloc(Borrowed{data}, ffi::ShapeView(shape.data(), shape.size()), type,
                                  DLDevice{kDLCPU, 0});
}

std::string Text(const Object& object, const char* name) {
  return std::string(object[ffi::String(name)].cast<ffi::String>());
}

int64_t Number(const Object& object, const char* name) {
  return object[ffi::String(name)].cast<int64_t>();
}

// The library's file, mapped: weights are used where they lie.
class Mapped {
 public:
  explicit Mapped(const char* path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0 || status.st_size < static_cast<off_t>(kFooter)) {
      throw std::runtime_error(std::string(path) + " cannot be read as a library");
    }
    size_ = status.st_size;
    // Private and writable, since TVM takes its arguments as writable arrays.
    void* data = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    close(file);
    if (data == MAP_FAILED) throw std::runtime_error(std::string(path) + " cannot be mapped");
    data_ = static_cast<char*>(data);
    const char* footer = data_ + size_ - kFooter;
    uint64_t lengths[4];
    uint32_t version;
    std::memcpy(lengths, footer, sizeof(lengths));
    std::memcpy(&version, footer + 108, sizeof(version));
    if (std::memcmp(footer + 96, "FERPLUS-TVM\n", 12) != 0 || version != 4 ||
        lengths[3] != size_ || lengths[0] + lengths[1] + lengths[2] + kFooter != size_) {
      throw std::runtime_error(std::string(path) + " is no whole library of format 4");
    }
    weights_ = data_ + lengths[0];
    manifests_ = std::string(weights_ + lengths[1], lengths[2]);
  }

  char* weights() const { return weights_; }
  const std::string& manifests() const { return manifests_; }

 private:
  char* data_;
  char* weights_;
  size_t size_;
  std::string manifests_;
};

class Engine {
 public:
  Engine(const char* path, int threads) : file_(path) {
    const auto configure = ffi::Function::GetGlobalRequired("runtime.config_threadpool");
    configure(1, threads);
    // The first target's code is what the dynamic loader finds in the file itself.
    const auto manifest = ffi::json::Parse(file_.manifests()).cast<List>()[0].cast<Object>();
    char absolute[4096];
    if (realpath(path, absolute) == nullptr) throw std::runtime_error("no such file");
    const auto input = manifest[ffi::String("input_shape")].cast<List>();  // "N", C, S, S
    const int64_t channels = input[1].cast<int64_t>(), side = input[2].cast<int64_t>();
    // Grey has its channel first, and colour its channels last.
    face_ = channels == 1 ? std::vector<int64_t>{1, side, side}
                          : std::vector<int64_t>{side, side, channels};
    classes_ = manifest[ffi::String("labels")].cast<List>().size();
    const ffi::Module library = ffi::Module::LoadFromFile(absolute);
    vm_ = (*library->GetFunction("vm_load_executable"))().cast<ffi::Module>();
    // CPU 0 with the pooled allocator (2), as device and as host.
    (*(*vm_)->GetFunction("vm_initialization"))(1, 0, 2, 1, 0, 2);

    std::vector<ffi::Tensor> tensors;
    for (const auto& each : manifest[ffi::String("tensors")].cast<List>()) {
      const auto tensor = each.cast<Object>();
      std::vector<int64_t> shape;
      for (const auto& extent : tensor[ffi::String("shape")].cast<List>()) {
        shape.push_back(extent.cast<int64_t>());
      }
      const bool half = Text(tensor, "dtype") == "float16";
      const DLDataType type{kDLFloat, static_cast<uint8_t>(half ? 16 : 32), 1};
      tensors.push_back(View(file_.weights() + Number(tensor, "offset"), shape, type));
    }
    for (const auto& [size, described] : manifest[ffi::String("functions")].cast<Object>()) {
      const auto function = described.cast<Object>();
      Batch batch{*(*vm_)->GetFunction(Text(function, "name")), {}};
      for (const auto& index : function[ffi::String("weights")].cast<List>()) {
        batch.weights.push_back(tensors[index.cast<int64_t>()]);
      }
      batches_.emplace(std::stoll(std::string(size.cast<ffi::String>())), batch);
    }
  }

  // The values of a face, and the scores that it gets.
  int64_t pixels() const { return face_[0] * face_[1] * face_[2]; }
  int64_t classes() const { return classes_; }

  // Scores of faces, (N, classes), split over the batch sizes that were compiled.
  std::vector<float> Scores(const std::vector<float>& pixels) {
    const int64_t each_face = this->pixels(), faces = pixels.size() / each_face;
    std::vector<float> scores;
    for (int64_t done = 0; done < faces;) {
      auto fitting = batches_.begin();  // the largest that is filled, or the smallest of all
      for (auto each = batches_.begin(); each != batches_.end(); ++each) {
        if (each->first <= faces - done) fitting = each;
      }
      auto& [size, batch] = *fitting;
      const int64_t count = std::min(size, faces - done);
      // Generated code moves whole vectors and takes any address for an aligned one.
      const std::unique_ptr<float, decltype(&std::free)> buffer(
          static_cast<float*>(std::aligned_alloc(64, size * each_face * sizeof(float))), std::free);
      if (!buffer) throw std::bad_alloc();
      std::fill_n(buffer.get(), size * each_face, 0.0f);
      std::copy_n(pixels.data() + done * each_face, count * each_face, buffer.get());
      std::vector<ffi::AnyView> arguments;
      const ffi::Tensor x = View(buffer.get(), {size, face_[0], face_[1], face_[2]}, DLDataType{kDLFloat, 32, 1});
      arguments.push_back(x);
      for (const auto& weight : batch.weights) arguments.push_back(weight);
      ffi::Any answer;
      batch.function.CallPacked(arguments.data(), arguments.size(), &answer);
      const ffi::Tensor found = answer.cast<ffi::Tensor>();
      const float* values = static_cast<const float*>(found.data_ptr());
      scores.insert(scores.end(), values, values + count * classes_);
      done += count;
    }
    return scores;
  }

 private:
  struct Batch {
    ffi::Function function;
    std::vector<ffi::Tensor> weights;
  };

  Mapped file_;
  std::optional<ffi::Module> vm_;
  std::vector<int64_t> face_;
  int64_t classes_ = 0;
  std::map<int64_t, Batch> batches_;
};

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s LIBRARY FACES [THREADS]\n", arguments[0]);
    return 2;
  }
  try {
    Engine engine(arguments[1], count > 3 ? std::atoi(arguments[3]) : 1);
    std::ifstream file(arguments[2], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    if (!file || bytes.empty() || bytes.size() % (engine.pixels() * sizeof(float)) != 0) {
      throw std::runtime_error(std::string(arguments[2]) + " is not whole faces, of " +
                               std::to_string(engine.pixels()) + " float32 values each");
    }
    std::vector<float> pixels(bytes.size() / sizeof(float));
    std::memcpy(pixels.data(), bytes.data(), bytes.size());
    const std::vector<float> scores = engine.Scores(pixels);
    for (size_t at = 0; at < scores.size(); ++at) {
      std::printf("%.9g%c", scores[at], (at + 1) % engine.classes() == 0 ? '\n' : ' ');
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
  return 0;
}
