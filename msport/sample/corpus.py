"""The text from which sample tokenizers learn their merges."""

# ruff: noqa: RUF001  Chinese has its own punctuation

TEXT = """\
A language model reads a sequence of tokens and predicts the next one. Every token is first turned into a vector, the
vector passes through a stack of layers, and the last layer's output is compared with the embedding of every word in the
vocabulary. Attention lets each position look back at earlier positions; the feed-forward network then works on each
position by itself. When a model has many experts, a router chooses a few of them for every token, so that only a small
part of the weights is read in each step.

The weather was fine in the morning, so they walked along the river to the old bridge. "How far is it to the harbour?"
she asked. "About three miles," he said, "but the path is steep, and we don't have much time." They'd brought bread,
cheese, apples and a bottle of water. By noon the clouds had gathered over the mountains, and a cold wind blew from the
north. I've never seen the sea so dark; it's as if the whole sky were falling into it, wouldn't you agree?

Numbers matter: 1, 2, 3, 10, 42, 128, 1000, 4096 and 2025 are integers; 3.14159 and 2.71828 are not. Water freezes at 0
degrees and boils at 100. The committee met on Monday, published its report on Thursday, and answered questions until
midnight. Scientists measure light, heat, pressure and time; engineers build bridges, engines, computers and cities;
teachers explain, doctors heal, farmers plant, painters see.

def fibonacci(n: int) -> int:
    if n < 2:
        return n
    return fibonacci(n - 1) + fibonacci(n - 2)

for index, value in enumerate(sorted(values)):
    print(f"{index}: {value}")

import numpy as np
weights = np.zeros((rows, columns), dtype=np.float32)

Once upon a time there was a little town between two hills, where everybody knew everybody else. The baker rose before
the sun, the blacksmith sang while he worked, and the children ran down to the mill after school. One evening a stranger
arrived with a lantern in his hand and a story to tell. Nobody believed him at first. But the story was long, the night
was quiet, and when he had finished there was not a person in the room who wanted to go home.

Please answer the following question briefly and explain your reasoning step by step. What is the capital of France?
The capital of France is Paris. Thank you very much! You are welcome. Hello, world. How are you today? I am a helpful
assistant and I can translate, summarize, write code, and solve problems.

语言模型读取一串词元，并预测下一个词元。今天天气很好，我们去公园散步吧。你好，世界！请问去火车站怎么走？
机器学习需要数据、算力和耐心。谢谢你的帮助，再见。
"""
