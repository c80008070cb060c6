// The functions of machine.h, around TVM's runtime and its virtual machine.

#include "machine.h"

#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>
#include <tvm/runtime/base.h>
#include <tvm/runtime/tensor.h>

#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

constexpr int kLargestRank = 7;
constexpr int kPooledAllocator = 2;  // Keeps freed memory for the next call.

struct Model {
  tvm::ffi::ObjectRef machine;
  tvm::ffi::Function main;
  tvm::runtime::Tensor row;
  size_t row_bytes = 0;
};

thread_local std::string last_error;

// Exceptions end here: C knows none.
template <typename Body>
bool Succeeds(Body body) {
  try {
    body();
    return true;
  } catch (const std::exception& error) {
    last_error = error.what();
  }
  return false;
}

tvm::ffi::Function Get(const tvm::ffi::Module& module, const char* name) {
  auto found = module->GetFunction(name);
  if (!found.has_value()) throw std::runtime_error(std::string("the library has no `") + name + "`");
  return found.value();
}

void Open(const char* library, Model* model, int64_t* shape, int32_t* rank) {
  auto executable = tvm::ffi::Module::LoadFromFile(library);
  auto machine = Get(executable, "vm_load_executable")().cast<tvm::ffi::Module>();
  model->machine = machine;
  Get(machine, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  model->main = Get(machine, "main");
  auto numbers = Get(machine, "signature")().cast<tvm::runtime::Tensor>();
  *rank = static_cast<int32_t>(numbers->shape[0]) - 1;
  if (numbers->dtype.bits != 64 || *rank < 1 || *rank > kLargestRank) {
    throw std::runtime_error("the library does not say what it takes");
  }
  std::memcpy(shape, numbers->data, sizeof(int64_t) * (*rank + 1));
  const DLDataType token{kDLInt, 64, 1}, brightness{kDLFloat, 32, 1};
  const DLDataType type = *rank == 2 ? token : brightness;
  tvm::ffi::Shape sizes(std::vector<int64_t>(shape, shape + *rank));
  model->row = tvm::runtime::Tensor::Empty(sizes, type, DLDevice{kDLCPU, 0});
  model->row_bytes = type.bits / 8;
  for (int64_t size : sizes) model->row_bytes *= size;
}

}  // namespace

void* modelbuild_open(const char* library, int64_t* shape, int32_t* rank) {
  auto model = std::make_unique<Model>();
  return Succeeds([&] { Open(library, model.get(), shape, rank); }) ? model.release() : nullptr;
}

int64_t modelbuild_run(void* opened, const void* row, float* logits, int64_t room) {
  auto* model = static_cast<Model*>(opened);
  int64_t count = 1;
  bool done = Succeeds([&] {
    std::memcpy(model->row->data, row, model->row_bytes);
    auto found = model->main(model->row).cast<tvm::runtime::Tensor>();
    for (int axis = 0; axis < found->ndim; ++axis) count *= found->shape[axis];
    if (count > room) throw std::runtime_error("there is no room for the logits");
    std::memcpy(logits, found->data, sizeof(float) * count);
  });
  return done ? count : -1;
}

void modelbuild_close(void* opened) { delete static_cast<Model*>(opened); }

const char* modelbuild_error(void) { return last_error.c_str(); }

const char* modelbuild_version(void) { return TVM_VERSION; }
