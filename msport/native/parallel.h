// Splits a loop over the processor's cores, with permanent threads: starting one takes as long as reading a megabyte.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace msport {

// MSPORT_THREADS, or the number of cores.
inline int64_t thread_limit() {
  static const int64_t limit = [] {
    const char* wanted = std::getenv("MSPORT_THREADS");
    const long count = wanted ? std::strtol(wanted, nullptr, 10) : 0;
    return std::min<int64_t>(1024, count > 0 ? count : std::max(1u, std::thread::hardware_concurrency()));
  }();
  return limit;
}

class Pool {
 public:
  // The pool of this process. It is never destroyed, because its threads must not outlive what they wait for.
  static Pool& instance() {
    static Pool* const pool = new Pool(thread_limit() - 1);
    return *pool;
  }

  // Calls task(context, worker) for every worker in [0, count), where this thread is 0. Returns false and does nothing if
  // another thread is using the pool, or if this process was forked from the one with the threads.
  bool run(int64_t count, void (*task)(const void*, int64_t), const void* context) {
    std::unique_lock<std::mutex> mine(in_use_, std::try_to_lock);
    if (!mine || getpid() != owner_) return false;
    task_ = task;
    context_ = context;
    pending_.store(count - 1, std::memory_order_relaxed);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      order_.store((order_.load(std::memory_order_relaxed) / kMost + 1) * kMost + count, std::memory_order_release);
    }
    wake_.notify_all();
    task(context, 0);
    for (int spins = 0; pending_.load(std::memory_order_acquire) != 0; ++spins)
      if (spins > kSpins) std::this_thread::yield();
    return true;
  }

 private:
  // About 20 microseconds: the threads stay awake until the next kernel of a decode step, and sleep between steps.
  static constexpr int kSpins = 20000;
  static constexpr int64_t kMost = 1 << 12;  // workers

  explicit Pool(int64_t helpers) : owner_(getpid()) {
    for (int64_t worker = 1; worker <= helpers; ++worker) std::thread([this, worker] { serve(worker); }).detach();
  }

  void serve(int64_t worker) {
    int64_t seen = 0;
    for (;;) {
      for (int spins = 0; spins < kSpins && order_.load(std::memory_order_acquire) == seen; ++spins) {
      }
      if (order_.load(std::memory_order_acquire) == seen) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, [&] { return order_.load(std::memory_order_acquire) != seen; });
      }
      seen = order_.load(std::memory_order_acquire);
      // A worker that is not part of this order must not read the task: the next order may already be writing it.
      if (worker >= seen % kMost) continue;
      task_(context_, worker);
      pending_.fetch_sub(1, std::memory_order_release);
    }
  }

  const pid_t owner_;
  std::mutex in_use_, mutex_;
  std::condition_variable wake_;
  std::atomic<int64_t> order_{0};  // how often the pool was called, times kMost, plus how many workers are to run
  std::atomic<int64_t> pending_{0};
  void (*task_)(const void*, int64_t) = nullptr;
  const void* context_ = nullptr;
};

// Calls body(begin, end) for disjoint ranges that cover [0, count). `cost` is the work of one item in multiplications: a
// loop shorter than waking a thread stays on this one.
template <typename Body>
void parallel(int64_t count, double cost, const Body& body) {
  constexpr double kWorthAThread = 5e4;
  const int64_t useful = int64_t(double(count) * cost / kWorthAThread) + 1;
  struct Range {
    const Body& body;
    int64_t count, workers;
  } const range{body, count, std::max<int64_t>(1, std::min({thread_limit(), count, useful}))};
  const auto share = [](const void* context, int64_t worker) {
    const Range& r = *static_cast<const Range*>(context);
    r.body(r.count * worker / r.workers, r.count * (worker + 1) / r.workers);
  };
  if (range.workers == 1 || !Pool::instance().run(range.workers, share, &range)) body(0, count);
}

}  // namespace msport
