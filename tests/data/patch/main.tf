resource "kubernetes_deployment" "t" {
  spec {
    template {
      spec {
        container {
          image = "ghcr.io/huggingface/text-generation-inference:3.3.7"
          name  = "tgi"
          args  = ["--model-id", "Qwen/Qwen2.5-7B-Instruct"]
          env {
            name  = "PORT"
            value = "80"
          }
        }
      }
    }
  }
}
