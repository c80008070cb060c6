/* Runs a model that TVM compiled, for applications on devices for which there is no package of TVM.
 *
 * Link with libtvm_runtime.so, or open it. One model may be run by one thread at a time.
 */
#ifndef MODELBUILD_TVM_MACHINE_H_
#define MODELBUILD_TVM_MACHINE_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Loads `model.so`. `shape` has room for eight numbers and gets those of a row, and behind them how many
 * classes, or tokens, the model tells apart; `rank` gets how many numbers a row's shape has. NULL: it cannot. */
void* modelbuild_open(const char* library, int64_t* shape, int32_t* rank);

/* Runs a row: int64 tokens for a shape of two numbers, else float32. Writes at most `room` logits, float32.
 * Returns how many there are, or -1. */
int64_t modelbuild_run(void* model, const void* row, float* logits, int64_t room);

/* Lets go of a model. */
void modelbuild_close(void* model);

/* What went wrong last in this thread. */
const char* modelbuild_error(void);

/* TVM's version. */
const char* modelbuild_version(void);

#ifdef __cplusplus
}
#endif

#endif
