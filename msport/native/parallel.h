// Splits a loop over the processor's cores, with permanent threads that stay awake from one kernel to the next.
//
// Waking a thread takes 50 microseconds on a virtual machine, as long as a small matrix product. So a thread that has
// nothing to do first spins. A loop is cut into more pieces than there are threads, and every thread takes the next
// piece that is free. So a thread that is late, or that shares its core with another process, delays nobody.
#pragma once

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace msport {

// The number in `stated`, the text of an environment variable; `otherwise` if there is none of at least `least`.
inline int64_t setting(const char* stated, int64_t least, int64_t otherwise) {
  if (!stated) return otherwise;
  char* end = nullptr;
  const long value = std::strtol(stated, &end, 10);
  return end == stated || value < least ? otherwise : value;
}

inline int64_t cores() { return std::max(1u, std::thread::hardware_concurrency()); }

// MSPORT_THREADS, or the number of cores.
inline int64_t thread_limit() {
  static const int64_t limit = std::min<int64_t>(1024, setting(std::getenv("MSPORT_THREADS"), 1, cores()));
  return limit;
}

// Tells the processor that this thread is waiting: it saves power, and leaves more to the other thread of the core.
inline void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Returns true as soon as `ready()` does, or false after `microseconds`. Soon offers the core to threads that can run.
template <typename Ready>
bool spin(int64_t microseconds, const Ready& ready) {
  using Clock = std::chrono::steady_clock;
  constexpr int kPauses = 512, kPausesPerYield = 64;  // the first about ten microseconds
  for (int i = 0; i < kPauses; ++i) {
    if (ready()) return true;
    pause();
  }
  const Clock::time_point end = Clock::now() + std::chrono::microseconds(microseconds);
  while (Clock::now() < end) {
    for (int i = 0; i < kPausesPerYield; ++i) {
      if (ready()) return true;
      pause();
    }
    std::this_thread::yield();
  }
  return ready();
}

class Pool {
 public:
  using Task = void (*)(const void* context, int64_t piece);

  // The pool of this process. It is never destroyed, because its threads must not outlive what they wait for.
  static Pool& instance() {
    static Pool* const pool = new Pool(thread_limit() - 1);
    return *pool;
  }

  // Calls task(context, piece) once for every piece in [0, pieces), on this thread and on others. Returns false and does
  // nothing if another thread is using the pool, or if this process was forked from the one with the threads.
  bool run(int64_t pieces, Task task, const void* context) {
    if (forked().load(std::memory_order_relaxed) || in_use_.exchange(true, std::memory_order_acquire)) return false;
    task_ = task;
    context_ = context;
    pieces_ = pieces;
    unfinished_.store(pieces, std::memory_order_relaxed);
    const int64_t order = (order_.load(std::memory_order_relaxed) / kMostPieces + 1) * kMostPieces + pieces;
    order_.store(order, std::memory_order_seq_cst);  // before the number of sleepers is read
    if (asleep_.load(std::memory_order_seq_cst) > 0) {
      { const std::lock_guard<std::mutex> lock(mutex_); }  // a thread that is about to sleep has seen no order yet
      wake_.notify_all();
    }
    work(order);
    while (!spin(kAwakeMicroseconds, [this] { return unfinished_.load(std::memory_order_acquire) == 0; })) {
    }
    in_use_.store(false, std::memory_order_release);
    return true;
  }

  static constexpr int64_t kMostPieces = 1 << 16;  // exclusive

 private:
  // How long an idle thread stays awake: longer than any gap between the kernels of a decoding step.
  static constexpr int64_t kAwakeMicroseconds = 1000;
  static constexpr int64_t kLine = 128;  // bytes that two cores cannot write independently

  explicit Pool(int64_t helpers) {
    pthread_atfork(nullptr, nullptr, [] { forked().store(true); });
    for (int64_t helper = 0; helper < helpers; ++helper) std::thread([this] { serve(); }).detach();
  }

  static std::atomic<bool>& forked() {
    static std::atomic<bool> value{false};
    return value;
  }

  void serve() {
    // With more threads than cores, a thread that spins would take the core of one that works.
    static const int64_t awake =
        setting(std::getenv("MSPORT_AWAKE_US"), 0, thread_limit() > cores() ? 0 : kAwakeMicroseconds);
    int64_t seen = 0;
    const auto ordered = [this, &seen] { return order_.load(std::memory_order_seq_cst) / kMostPieces != seen; };
    for (;;) {
      if (awake == 0 || !spin(awake, ordered)) {
        std::unique_lock<std::mutex> lock(mutex_);
        asleep_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, ordered);
        asleep_.fetch_sub(1, std::memory_order_relaxed);
      }
      const int64_t order = order_.load(std::memory_order_acquire);
      seen = order / kMostPieces;
      work(order);
    }
  }

  // Runs pieces of the order until none is left. Until a piece is taken, the next order may already replace this one;
  // afterwards `run` waits for the piece.
  void work(int64_t order) {
    const int64_t number = order / kMostPieces;
    while (order / kMostPieces == number && order % kMostPieces > 0) {
      if (!order_.compare_exchange_weak(order, order - 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
      task_(context_, pieces_ - order % kMostPieces);
      unfinished_.fetch_sub(1, std::memory_order_release);
      order = order_.load(std::memory_order_acquire);
    }
  }

  alignas(kLine) std::atomic<int64_t> order_{0};  // how often the pool was called, times kMostPieces, plus pieces to take
  alignas(kLine) std::atomic<int64_t> unfinished_{0};
  alignas(kLine) std::atomic<bool> in_use_{false};
  std::atomic<int64_t> asleep_{0};
  std::mutex mutex_;
  std::condition_variable wake_;
  Task task_ = nullptr;
  const void* context_ = nullptr;
  int64_t pieces_ = 0;
};

// Calls body(begin, end) for disjoint ranges that cover [0, count), whose borders depend on nothing but the arguments and
// the number of threads. Long ranges begin at multiples of 16, so that blocks of rows stay whole. `cost` is the work of
// one item in multiplications: a loop that is shorter than handing over a part of it stays on this thread.
template <typename Body>
void parallel(int64_t count, double cost, const Body& body) {
  constexpr double kWorthAPiece = 2.5e4;
  constexpr int64_t kPiecesPerThread = 4, kBlock = 16;
  const int64_t useful = int64_t(double(count) * cost / kWorthAPiece);
  const int64_t most = std::min({thread_limit() * kPiecesPerThread, count, useful, Pool::kMostPieces - 1});
  if (thread_limit() == 1 || most < 2) return body(0, count);
  int64_t size = (count + most - 1) / most;
  if (size >= kBlock) size = (size + kBlock - 1) / kBlock * kBlock;
  struct Loop {
    const Body& body;
    int64_t count, size;
  } const loop{body, count, size};
  const auto run = [](const void* context, int64_t piece) {
    const Loop& l = *static_cast<const Loop*>(context);
    l.body(l.size * piece, std::min(l.count, l.size * (piece + 1)));
  };
  const int64_t pieces = (count + size - 1) / size;
  if (pieces < 2 || !Pool::instance().run(pieces, run, &loop)) body(0, count);
}

}  // namespace msport
